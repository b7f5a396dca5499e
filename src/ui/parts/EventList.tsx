/** What happened that an operator acts on, the newest first. */
import type { OperatorEvent } from "../../services/observability/OperatorEvents.ts"
import { dateTime } from "../format.ts"
import { Badge, Table } from "./Basics.tsx"
import type { Tone } from "./Basics.tsx"

const tones: Readonly<Record<OperatorEvent["severity"], Tone>> = { info: "none", warning: "warn", critical: "bad" }

const detailsOf = ({ details = {}, process }: OperatorEvent): string =>
  [
    ...Object.entries(details).map(([name, value]) =>
      `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`
    ),
    ...(process === undefined ? [] : [`process ${process}`])
  ].join(", ")

const Message = ({ event }: { readonly event: OperatorEvent }) => {
  const details = detailsOf(event)
  return <>{event.message}{details !== "" && <small>{details}</small>}</>
}

export const EventList = ({ events }: { readonly events: ReadonlyArray<OperatorEvent> }) => (
  <Table
    caption="Events"
    columns={[
      {
        head: "Time",
        cell: ({ at }) => <time dateTime={new Date(at).toISOString()} class="nowrap">{dateTime(at)}</time>
      },
      { head: "Kind", cell: ({ kind, severity }) => <Badge text={kind} tone={tones[severity]} /> },
      { head: "What happened", cell: (event) => <Message event={event} /> },
      { head: "Model or deployment", cell: ({ deployment, model }) => deployment ?? model ?? "" }
    ]}
    rows={events}
    keyOf={({ id }) => id}
  />
)
