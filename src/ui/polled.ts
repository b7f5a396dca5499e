/** An answer of the service that is asked for again while a page shows it. */
import type { Signal } from "@preact/signals"
import { signal, useSignal } from "@preact/signals"
import { useEffect } from "preact/hooks"
import type { AlertReport } from "../services/alerts/AlertNotice.ts"
import { ask, messageOf, wasCancelled } from "./session.ts"

export interface Polled<A> {
  readonly value: A | undefined
  /** Why the last request failed; the value before it stays. */
  readonly problem: string | undefined
  /** Asks now. */
  readonly refresh: () => void
}

interface State<A> {
  readonly value: A | undefined
  readonly problem: string | undefined
}

/** Asks until the returned function is called; `now` asks at once. */
const poller = <A>(path: string, everyMs: number, state: Signal<State<A>>) => {
  const stopping = new AbortController()
  let timer: ReturnType<typeof setTimeout> | undefined
  const now = async (): Promise<void> => {
    clearTimeout(timer)
    try {
      state.value = { value: await ask<A>(path, { signal: stopping.signal }), problem: undefined }
    } catch (error) {
      if (wasCancelled(error)) return
      state.value = { value: state.peek().value, problem: messageOf(error) }
    }
    if (stopping.signal.aborted) return
    clearTimeout(timer)
    // A page in the background is not asked for.
    timer = setTimeout(() => void (document.hidden ? wait() : now()), everyMs)
  }
  const wait = () => {
    timer = setTimeout(() => void (document.hidden ? wait() : now()), everyMs)
  }
  return {
    now,
    stop: () => {
      stopping.abort()
      clearTimeout(timer)
    }
  }
}

/**
 * @param path another path is asked at once
 * @param everyMs between an answer and the next request
 */
export const usePolled = <A>(path: string, everyMs: number): Polled<A> => {
  const state = useSignal<State<A>>({ value: undefined, problem: undefined })
  const refresh = useSignal<() => void>(() => {})
  useEffect(() => {
    const { now, stop } = poller(path, everyMs, state)
    refresh.value = () => void now()
    void now()
    return stop
  }, [path, everyMs])
  return { ...state.value, refresh: () => refresh.peek()() }
}

/** The alerts that fire, for every page. */
export const firing = signal<AlertReport["alerts"]>([])

/** Asks for them while the page is open. */
export const useFiring = (): void => {
  const { value } = usePolled<AlertReport>("/admin/alerts", 5_000)
  useEffect(() => {
    firing.value = (value?.alerts ?? []).filter(({ state }) => state === "firing")
  }, [value])
}
