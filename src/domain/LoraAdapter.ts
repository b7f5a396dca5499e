/**
 * Whether a LoRA adapter (Hu et al., 2021) can be applied to a model, by the headers of their GGUF files. Pure.
 *
 * **Details**
 *
 * As llama.cpp's `convert_lora_to_gguf.py` writes it: `general.type` is `adapter`, `adapter.type` is `lora`, and for each
 * changed weight of `outputs` times `inputs` numbers there is a pair `<weight>.lora_a` of `rank` times `inputs` and
 * `<weight>.lora_b` of `outputs` times `rank`. GGUF has the dimensions of a tensor in reverse order.
 *
 * **Gotchas**
 *
 * llama.cpp loads an adapter without tensors and changes nothing, so that it is refused here. Engine threads import this
 * module, so it must not import `effect`: see `EngineProtocol`.
 */

/** A LoRA adapter of a deployment. */
export interface Adapter {
  /** Of the GGUF file. */
  readonly path: string
  /** Factor of its change; 1 is as trained. */
  readonly scale: number
}

/** The header of a GGUF file. */
export interface Header {
  readonly metadata: (key: string) => unknown
  readonly tensors: ReadonlyArray<{ readonly name: string; readonly dimensions: ReadonlyArray<number> }>
}

const pairSuffix = /\.lora_([ab])$/

/** Its A and B have the dimensions of the token's number, in place of the input's, and are swapped. */
const tokenEmbedding = "token_embd.weight"

const useOther = "Use an adapter that was trained on this model"

const typeProblem = (adapter: Header, model: Header): string | undefined => {
  const type = adapter.metadata("general.type")
  if (type !== "adapter") {
    return "It is not an adapter: its general.type is not adapter. Expected a LoRA adapter in GGUF format, as llama.cpp's " +
      "convert_lora_to_gguf.py writes it"
  }
  const kind = adapter.metadata("adapter.type")
  if (kind !== "lora") return `Its adapter.type is ${String(kind)}. Expected lora`
  const [own, other] = [adapter, model].map(({ metadata }) => String(metadata("general.architecture")))
  return own === other ? undefined : `It is for models of the architecture ${own}, not ${other}. ${useOther}`
}

/** Whether the pair fits the weight. */
const fits = (
  name: string,
  weight: ReadonlyArray<number>,
  [a, b]: readonly [a: ReadonlyArray<number>, b: ReadonlyArray<number>]
): boolean =>
  name === tokenEmbedding
    ? weight[0] === b[1] && weight[1] === a[1]
    : weight[0] === a[0] && weight[1] === b[1] && a[1] === b[0]

/** Why the adapter cannot be applied to the model, and what to use; undefined if it can. */
export const problemOf = (adapter: Header, model: Header): string | undefined => {
  const problem = typeProblem(adapter, model)
  if (problem !== undefined) return problem
  const own = new Map(adapter.tensors.map(({ dimensions, name }) => [name, dimensions]))
  const weights = new Map(model.tensors.map(({ dimensions, name }) => [name, dimensions]))
  const names = new Set(
    [...own.keys()].filter((name) => pairSuffix.test(name)).map((name) => name.replace(pairSuffix, ""))
  )
  if (names.size === 0) return `It has no tensors. ${useOther}`
  for (const name of names) {
    const [a, b] = [own.get(`${name}.lora_a`), own.get(`${name}.lora_b`)]
    if (a === undefined || b === undefined) return `Its tensors for ${name} are not a pair. Convert the adapter again`
    const weight = weights.get(name)
    if (weight === undefined) return `It changes ${name}, which the model does not have. ${useOther}`
    if (!fits(name, weight, [a, b])) return `Its tensors for ${name} do not fit the model's. ${useOther}`
  }
  return undefined
}
