/**
 * Measures the quality of an embedding model in a folder, for its card: `node models/measureEmbedder.ts models/tiny-embed`.
 *
 * **Details**
 *
 * - Pairs of sentences: the rank correlation of cosines with judgements (`test/support/SentencePairs`).
 * - Retrieval: the sections of README.md and docs in pieces of whole lines that fit the window, each with its heading. A
 *   question counts if one of its sections (`test/support/DocQuestions`) is among the nearest.
 * - Questions of the semantic cache: pairs with different answers and with the same one (`test/support/QuestionPairs`).
 */
import { readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { factsOf, wordsAgree } from "../src/services/cache/QuestionFacts.ts"
import { load } from "../src/workers/onnx/OnnxLoad.ts"
import { docQuestions } from "../test/support/DocQuestions.ts"
import { nearMisses, paraphrases, unseenNearMisses } from "../test/support/QuestionPairs.ts"
import { sentencePairs } from "../test/support/SentencePairs.ts"
import { cosine, rankCorrelation } from "../test/support/Similarity.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const threshold = 0.9

const { contextWindow, session, tokenizer, work } = await load({
  engine: "onnx",
  folder: resolve(process.argv[2] ?? ""),
  model: "model",
  device: "cpu",
  slots: 1,
  threads: 1
})
if (work.kind !== "embed") throw new Error("The model embeds no texts.")
const { tasks: { embed } } = work

type Vector = Float32Array

const vectorsOf = async (texts: ReadonlyArray<string>): Promise<ReadonlyArray<Vector>> => {
  const result = await embed(texts, { isCancelled: () => false, progress: () => {} })
  if (result.kind !== "embed") throw new Error(result.kind)
  return result.embeddings.map((each) => {
    if (!each.ok) throw new Error(each.failure.kind)
    return each.value.vector
  })
}

const similaritiesOf = async (pairs: ReadonlyArray<readonly [string, string, ...ReadonlyArray<unknown>]>) => {
  const vectors = await vectorsOf(pairs.flatMap(([one, other]) => [one, other]))
  return pairs.map((_, index) => cosine(vectors[2 * index]!, vectors[2 * index + 1]!))
}

const fits = (text: string): boolean => tokenizer.encodeInput(text).ids.length <= contextWindow

interface Piece {
  readonly heading: string
  readonly text: string
}

/** The pieces of one file. A line that does not fit is left out. */
const piecesOf = (markdown: string): ReadonlyArray<Piece> => {
  const pieces: Array<Piece> = []
  let heading: string | undefined
  let text = ""
  let isCode = false
  const end = () => {
    if (heading !== undefined && text !== heading) pieces.push({ heading, text })
    text = heading ?? ""
  }
  for (const line of markdown.split("\n")) {
    if (line.startsWith("```")) isCode = !isCode
    const [, found] = (isCode ? null : /^##+ (.+)/.exec(line)) ?? []
    if (found !== undefined) {
      end()
      heading = found
      text = heading
    } else if (heading !== undefined && line.trim() !== "") {
      if (!fits(`${text}\n${line}`)) end()
      if (fits(`${text}\n${line}`)) text = `${text}\n${line}`
    }
  }
  end()
  return pieces
}

/** How many of the questions have one of their sections among the nearest. */
const recalls = async (mostNear: ReadonlyArray<number>) => {
  const docs = readdirSync(join(root, "docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`)
  const pieces = ["README.md", ...docs].flatMap((name) => piecesOf(readFileSync(join(root, name), "utf8")))
  const headings = new Set(pieces.map(({ heading }) => heading))
  const missing = docQuestions.flatMap(([, ...sections]) => sections).filter((section) => !headings.has(section))
  if (missing.length > 0) throw new Error(`No such section: ${missing.join(", ")}`)
  const vectors = await vectorsOf(pieces.map(({ text }) => text))
  const questions = await vectorsOf(docQuestions.map(([question]) => question))
  const nearest = questions.map((question) => {
    const near = pieces.map(({ heading }, index) => ({ heading, similarity: cosine(question, vectors[index]!) }))
    return [...new Set(near.toSorted((one, other) => other.similarity - one.similarity).map(({ heading }) => heading))]
  })
  const counts = mostNear.map((most) =>
    docQuestions.filter(([, ...sections], index) =>
      nearest[index]!.slice(0, most).some((heading) => sections.includes(heading))
    ).length
  )
  return { pieces: pieces.length, counts }
}

/** Whether the semantic cache lets both questions have one answer, as far as their words are concerned. */
const agree = ([one, other]: readonly [string, string]): boolean => {
  const [first, second] = [factsOf(one), factsOf(other)]
  return first !== undefined && second !== undefined && first.text === second.text &&
    wordsAgree(first.words, second.words)
}

const shared = async (pairs: ReadonlyArray<readonly [string, string]>): Promise<string> => {
  const similarities = await similaritiesOf(pairs)
  const near = similarities.filter((similarity) => similarity >= threshold).length
  const given = pairs.filter((pair, index) => similarities[index]! >= threshold && agree(pair)).length
  return `${near} of ${pairs.length} from a similarity of ${threshold}, ${given} with the rules for words`
}

const correlation = rankCorrelation(
  await similaritiesOf(sentencePairs),
  sentencePairs.map(([, , judgement]) => judgement)
)
const most = [1, 3, 5]
const { counts, pieces } = await recalls(most)
process.stdout.write(`${
  [
    `${sentencePairs.length} pairs of sentences: rank correlation ${correlation.toFixed(2)}`,
    ...most.map((near, index) => `recall@${near} of ${pieces} pieces: ${counts[index]} of ${docQuestions.length}`),
    `questions with different answers: ${await shared(nearMisses)}`,
    `the same, unseen: ${await shared(unseenNearMisses)}`,
    `questions with the same answer: ${await shared(paraphrases)}`
  ].join("\n")
}\n`)
await session.release()
