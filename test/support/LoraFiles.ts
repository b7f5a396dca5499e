/** Writes LoRA adapters for tiny-chat, whose pairs change the first attention weights, and damaged ones. */
import { writeFileSync } from "node:fs"
import type { GgufValue } from "../../bench/GgufWriter.ts"
import * as Gguf from "../../bench/GgufWriter.ts"

const width = 192
const rank = 4

/** The pair of a weight of `outputs` times `inputs`. */
export interface Pair {
  readonly weight: string
  readonly inputs?: number
  readonly outputs?: number
  /** Of `lora_b`; default `rank`. */
  readonly rankOfB?: number
  /** Whether `lora_b` is left out. */
  readonly isHalf?: boolean
}

export interface Lora {
  readonly metadata?: Readonly<Record<string, GgufValue>>
  readonly pairs?: ReadonlyArray<Pair>
  /** The value of the numbers; default 0, which changes nothing. */
  readonly value?: number
}

const numbers = (count: number, value: number): Buffer => {
  const bytes = Buffer.from(new Float32Array(count).fill(value).buffer)
  return Buffer.concat([bytes, Buffer.alloc((32 - bytes.length % 32) % 32)])
}

/** Writes an adapter in llama.cpp's format. */
export const writeLora = (file: string, { metadata = {}, pairs, value = 0 }: Lora = {}): void => {
  const tensors = (pairs ?? [{ weight: "blk.0.attn_v.weight" }]).flatMap(
    ({ inputs = width, isHalf = false, outputs = width, rankOfB = rank, weight }) => [
      { name: `${weight}.lora_a`, dimensions: [inputs, rank], type: "f32" } as const,
      ...(isHalf ? [] : [{ name: `${weight}.lora_b`, dimensions: [rankOfB, outputs], type: "f32" } as const])
    ]
  )
  const header = Gguf.headerOf(
    Object.entries<GgufValue>({
      "general.architecture": "llama",
      "general.type": "adapter",
      "adapter.type": "lora",
      "adapter.lora.alpha": Gguf.f32(rank),
      ...metadata
    }),
    tensors
  )
  const weights = tensors.map(({ dimensions: [columns, rows] }) => numbers(columns * rows, value))
  writeFileSync(file, Buffer.concat([header, ...weights]))
}
