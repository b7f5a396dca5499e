/** Fields of `troupe.yaml` whose value is one of a fixed list, so that it can be no secret. Pure. */
import { Schema, SchemaAST } from "effect"
import type { Path } from "./Overlay.ts"
import { Source } from "./Schema.ts"

/** The schemas of the values in a place. */
const typesAt = (type: SchemaAST.AST, path: Path): ReadonlyArray<SchemaAST.AST> => {
  if (SchemaAST.isUnion(type)) return type.types.flatMap((one) => typesAt(one, path))
  if (path.length === 0) return [type]
  const [key, ...rest] = path
  if (SchemaAST.isArrays(type)) return [...type.elements, ...type.rest].flatMap((one) => typesAt(one, rest))
  if (!SchemaAST.isObjects(type)) return []
  const field = type.propertySignatures.find(({ name }) => name === key)
  return (field === undefined ? type.indexSignatures : [field]).flatMap((one) => typesAt(one.type, rest))
}

/** The place of a value in the file without the environment that it is for. */
const withoutEnvironment = (path: Path): Path => path[0] === "environments" ? path.slice(2) : path

/** Whether the field takes values of a fixed list only. */
export const isChoice = (path: Path): boolean => {
  const types = typesAt(Schema.toEncoded(Source).ast, withoutEnvironment(path))
  return types.length > 0 && types.every(SchemaAST.isLiteral)
}
