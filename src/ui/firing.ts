/** The alerts that fire, for every page. */
import { signal } from "@preact/signals"
import { useEffect } from "preact/hooks"
import type { AlertReport } from "../services/alerts/AlertNotice.ts"
import { usePolled } from "./polled.ts"

export const firing = signal<AlertReport["alerts"]>([])

/** Asks for them while the page is open. */
export const useFiring = (): void => {
  const { value } = usePolled<AlertReport>("/admin/alerts", 5_000)
  useEffect(() => {
    firing.value = (value?.alerts ?? []).filter(({ state }) => state === "firing")
  }, [value])
}
