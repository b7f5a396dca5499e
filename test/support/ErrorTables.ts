/** The tables of `docs/errors.md`, from the catalog and from what the dialects encode. */
import { Arbitrary, Effect } from "effect"
import * as Anthropic from "../../src/dialects/anthropic/EncodeError.ts"
import * as OpenAi from "../../src/dialects/openai/EncodeError.ts"
import { chatErrors } from "../../src/dialects/openai/FieldNames.ts"
import type { Entry } from "../../src/domain/ErrorCatalog.ts"
import * as ErrorCatalog from "../../src/domain/ErrorCatalog.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"

interface Encoded {
  readonly reason: string
  readonly code: string
  readonly openai: string
  readonly anthropic: string
}

const statusOf = (
  { headers, status }: { readonly headers: Readonly<Record<string, string>>; readonly status: number }
) => `${status}${"retry-after" in headers ? " R" : ""}`

const reasons: ReadonlyArray<InferenceError.Reason> = [
  ...Effect.runSync(
    Arbitrary.sampleEffect(Arbitrary.schema(InferenceError.Reason), { count: 6000, seed: "reasons" })
  ),
  // Samples rarely have the only status with a meaning of its own.
  new InferenceError.UpstreamFailed({ deployment: "chat#0", kind: "status", status: 529, detail: "Overloaded" })
]

/** What the dialects make of each reason, with many values of its fields. */
export const encoded: ReadonlyArray<Encoded> = reasons.map((reason) => ({
  reason: reason._tag,
  code: OpenAi.codeOf(reason),
  openai: statusOf(OpenAi.fromReason(reason, chatErrors)),
  anthropic: statusOf(Anthropic.fromReason(reason, "req_1"))
}))

const listOf = (values: ReadonlyArray<string>): string => {
  const unique = [...new Set(values)].toSorted()
  return unique.filter((value) => !unique.includes(`${value} R`)).join(", ")
}

const rowOf = ([code, { statuses }]: readonly [string, Entry]): string => {
  const found = encoded.filter((one) => one.code === code)
  const reasons = listOf(found.map(({ reason }) => reason))
  const openai = found.length === 0 ? (statuses ?? []).join(", ") : listOf(found.map(({ openai }) => openai))
  const anthropic = found.length === 0 ? (statuses ?? []).join(", ") : listOf(found.map(({ anthropic }) => anthropic))
  return `| [\`${code}\`](#${code}) | ${
    reasons === "" ? "none" : `\`${reasons.replaceAll(", ", "`, `")}\``
  } | ${openai} | ${anthropic} |`
}

const sectionOf = ([code, { cause, meaning, remedy }]: readonly [string, Entry]): string =>
  `### ${code}\n\n${meaning}\n\n- Cause: ${cause}\n- Remedy: ${remedy}\n`

/** The document with its tables and sections. */
export const withErrors = (text: string): string => {
  const [head] = text.split("<!-- errors -->")
  const parts = ErrorCatalog.parts.map(([title, entries]) =>
    [
      `## ${title}\n`,
      "| Code | Reason | OpenAI, Ollama | Anthropic |\n|---|---|---|---|",
      ...Object.entries(entries).map(rowOf),
      "",
      ...Object.entries(entries).map(sectionOf)
    ].join("\n")
  )
  return `${head}<!-- errors -->\n\n${parts.join("\n")}`
}
