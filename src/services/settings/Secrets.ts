/** Secrets that are written in `troupe.yaml` itself, found by their format or by the name of their field. Pure. */
import { Schema, SchemaAST } from "effect"
import * as Problem from "../../domain/Problem.ts"
import { hasSecretFormat, literalIn } from "./Interpolation.ts"
import type { Path, Tree } from "./Overlay.ts"
import { leaves } from "./Overlay.ts"
import { Source } from "./Schema.ts"

/** Names of fields that contain secrets. */
const secretName =
  /(?:^key|^token|api[-_]?key|secret|password|passphrase|credentials?|authorization|(?:access|auth|bearer)[-_]?token)$/i

/** Whether a value is a literal in a field whose name is that of a secret. */
const isNamedSecret = (key: PropertyKey | undefined, value: unknown): boolean =>
  typeof key === "string" && secretName.test(key) && literalIn(value) !== ""

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

/** Whether the field takes values of a fixed list only, so that none is a secret. */
const isChoice = (path: Path): boolean => {
  const types = typesAt(Schema.toEncoded(Source).ast, withoutEnvironment(path))
  return types.length > 0 && types.every(SchemaAST.isLiteral)
}

/** Whether a value is a literal secret. */
const isLiteralSecret = (path: Path, value: Tree): boolean =>
  hasSecretFormat(value) || (isNamedSecret(path.at(-1), value) && !isChoice(path))

/** The secrets of a file. */
export const secrets = (file: Tree): ReadonlyArray<Problem.Problem> =>
  leaves(file).filter(([path, value]) => isLiteralSecret(path, value)).map(([path]) => ({
    path: Problem.formatPath(path),
    expected: "A secret must not be written in the file. Use ${NAME} to read it from an environment variable"
  }))
