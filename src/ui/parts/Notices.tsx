/** What actions answered: one notice at a time, read by screen readers. */
import { signal } from "@preact/signals"
import { useEffect } from "preact/hooks"
import { connection } from "../live.ts"
import { route } from "../route.ts"
import { messageOf } from "../session.ts"

interface Notice {
  readonly kind: "good" | "bad"
  readonly text: string
}

const notice = signal<Notice | undefined>(undefined)

export const say = (kind: Notice["kind"], text: string): void => {
  notice.value = { kind, text }
}

/** Runs an action and says how it ended. Undefined if it failed. */
export async function attempt<A>(action: () => Promise<A>, done: string): Promise<A | undefined> {
  try {
    const result = await action()
    say("good", done)
    return result
  } catch (error) {
    say("bad", messageOf(error))
    return undefined
  }
}

const clear = () => {
  notice.value = undefined
}

/** A notice ends with its page; that something failed, also when the service is there again. */
const useEnd = () => {
  const { page } = route.value
  const isLive = connection.value.phase === "live"
  useEffect(() => clear, [page])
  useEffect(() => {
    if (isLive && notice.peek()?.kind === "bad") clear()
  }, [isLive])
}

export const Notices = () => {
  useEnd()
  return (
    <div role="status" aria-live="polite">
      {notice.value !== undefined && (
        <p class={`notice ${notice.value.kind}`}>
          <span>{notice.value.text}</span>
          <button type="button" class="quiet" onClick={clear}>Dismiss</button>
        </p>
      )}
    </div>
  )
}
