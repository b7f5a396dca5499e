/** A chat with any model, or with two side by side, with the route and the timings of every answer. */
import { signal } from "@preact/signals"
import type { Model } from "../../dialects/openai/Models.ts"
import type { Conversation, Options } from "../chat.ts"
import { answer, makeConversation, nextMessages } from "../chat.ts"
import { Empty, Title } from "../parts/Basics.tsx"
import { Chat } from "../parts/Chat.tsx"
import { Settings } from "../parts/ChatSettings.tsx"
import { usePolled } from "../polled.ts"

/** Kept while other pages are shown. */
const conversations: ReadonlyArray<Conversation> = [makeConversation(), makeConversation()]
const isCompared = signal(false)
const text = signal("")
const images = signal<ReadonlyArray<string>>([])
const problem = signal<string | undefined>(undefined)

const options = signal<Options>({ system: "", temperature: "", maxTokens: "", effort: "", tools: "", key: "" })

const mostImageBytes = 4 * 1024 * 1024

const read = (file: File): Promise<string> =>
  new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.addEventListener("load", () => resolve(reader.result as string))
    reader.addEventListener("error", () => reject(new Error(`${file.name} cannot be read.`)))
    reader.readAsDataURL(file)
  })

const attach = async (files: FileList | null): Promise<void> => {
  const chosen = [...files ?? []]
  const tooLarge = chosen.find(({ size }) => size > mostImageBytes)
  problem.value = tooLarge === undefined ? undefined : `${tooLarge.name} has more than 4 MiB. Choose a smaller image.`
  const added = await Promise.all(chosen.filter(({ size }) => size <= mostImageBytes).map(read))
  images.value = [...images.value, ...added]
}

const shownConversations = (): ReadonlyArray<Conversation> =>
  isCompared.value ? conversations : conversations.slice(0, 1)

const isBusy = (): boolean => conversations.some(({ stopping }) => stopping.value !== undefined)

const send = async (): Promise<void> => {
  if (text.peek().trim() === "" || isBusy()) return
  const [sent, attached] = [text.peek(), images.peek()]
  text.value = ""
  images.value = []
  await Promise.all(
    shownConversations().map((one) => {
      const before = one.messages.peek()
      one.messages.value = [...before, ...nextMessages(before, sent, attached)]
      return answer(one, options.peek())
    })
  )
}

const stop = () => conversations.forEach(({ stopping }) => stopping.value?.abort())

const clear = () => {
  stop()
  for (const { messages } of conversations) messages.value = []
}

const Attached = () => (
  <>
    {images.value.map((url, index) => (
      <span key={url} class="attached">
        <img src={url} alt={`Attached image ${index + 1}`} />
        <button type="button" class="quiet" onClick={() => (images.value = images.value.filter((one) => one !== url))}>
          Remove<span class="visually-hidden">image {index + 1}</span>
        </button>
      </span>
    ))}
  </>
)

const onKeyDown = (event: KeyboardEvent) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return
  event.preventDefault()
  void send()
}

const callsTool = (): boolean =>
  shownConversations().some(({ messages }) => (messages.value.at(-1)?.calls.length ?? 0) > 0)

const Composer = () => (
  <form
    class="composer"
    onSubmit={(event) => {
      event.preventDefault()
      void send()
    }}
  >
    <label for="prompt" class="visually-hidden">Message</label>
    <textarea
      id="prompt"
      rows={3}
      placeholder={callsTool()
        ? "Result of the tool call. Enter sends it."
        : "Message. Enter sends it, Shift and Enter begin a new line."}
      value={text.value}
      onInput={(event) => (text.value = event.currentTarget.value)}
      onKeyDown={onKeyDown}
    />
    {problem.value !== undefined && <p class="problem" role="alert">{problem.value}</p>}
    <div class="tools">
      {isBusy()
        ? <button type="button" onClick={stop}>Stop</button>
        : <button type="submit" class="primary">Send</button>}
      <label class="button">
        Add images
        <input
          class="visually-hidden"
          type="file"
          accept="image/*"
          multiple
          onChange={(event) => void attach(event.currentTarget.files)}
        />
      </label>
      <Attached />
      <span class="space" />
      <button type="button" class="quiet" onClick={clear}>Clear</button>
    </div>
  </form>
)

/** A model of the list, where none was chosen yet. */
const chooseDefaults = (models: ReadonlyArray<Model>): void => {
  conversations.forEach(({ model }, index) => {
    if (model.peek() === "" && models.length > 0) model.value = (models[index] ?? models[0]!).id
  })
}

const canChat = ({ capabilities }: Model): boolean => capabilities.includes("generate")

export const Playground = () => {
  const { problem: listProblem, value } = usePolled<{ readonly data: ReadonlyArray<Model> }>("/v1/models", 15_000)
  const models = (value?.data ?? []).filter(canChat)
  chooseDefaults(models)
  return (
    <div class="playground">
      <Title text="Playground">
        <label>
          <input
            type="checkbox"
            checked={isCompared.value}
            onChange={(event) => (isCompared.value = event.currentTarget.checked)}
          />{" "}
          Two side by side
        </label>
      </Title>
      {listProblem !== undefined && <p class="problem" role="alert">{listProblem}</p>}
      {value !== undefined && models.length === 0 && (
        <Empty title="No model that writes text">
          Add one to <code>models</code> in troupe.yaml.
        </Empty>
      )}
      <Settings options={options} />
      <div class={isCompared.value ? "chats two" : "chats"}>
        {shownConversations().map((one, index) => (
          <Chat
            key={index}
            conversation={one}
            models={models}
            name={isCompared.value ? ["left", "right"][index]! : ""}
          />
        ))}
      </div>
      <Composer />
    </div>
  )
}
