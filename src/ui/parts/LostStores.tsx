/** The stores that do not answer: since when, what that does to requests, and which figures are not stored meanwhile. */
import type { StoreState } from "../../services/health/StoreHealth.ts"
import { ago, dateTime } from "../format.ts"
import { overview } from "../live.ts"

type Store = StoreState["store"]

/** What the figures of costs and limits miss without a store. */
const missing: Readonly<Record<Store, string>> = {
  database:
    "Usage and cost since then are not stored: they wait in the memory of the service until the database answers again, " +
    "within its limits, and are lost if the service ends before. Figures of the ledger cannot be read meanwhile.",
  redis: "What was spent since then is not in the counters that processes and instances share."
}

const sinceOf = (since: number | undefined, now: number): string =>
  since === undefined ? "" : ` Lost since ${dateTime(since)} (${ago(since, now)}).`

/** @param about what else is said: nothing, or the figures of costs */
export const LostStores = ({ about }: { readonly about?: "costs" }) => {
  const snapshot = overview.value
  const lost = (snapshot?.service.stores ?? []).filter(({ available }) => !available)
  return (
    <>
      {lost.map(({ problem, since, store }) => (
        <p key={store} class="notice bad" role="alert">
          <span>
            {problem}
            {sinceOf(since, snapshot!.at)}
            {about === "costs" && ` ${missing[store]}`}
          </span>
        </p>
      ))}
    </>
  )
}
