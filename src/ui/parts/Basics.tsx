/** Small parts of pages: headings, badges, meters, tables, and what is shown where there is no data yet. */
import type { ComponentChildren } from "preact"

/** A heading that takes the focus when its page is chosen. */
export const Title = ({ children, text }: { readonly text: string; readonly children?: ComponentChildren }) => (
  <div class="title">
    <h1 tabIndex={-1}>{text}</h1>
    {children}
  </div>
)

/** No data yet, and what to do to get some. */
export const Empty = ({ children, title }: { readonly title: string; readonly children?: ComponentChildren }) => (
  <div class="empty">
    <p>
      <strong>{title}</strong>
    </p>
    <div class="muted">{children}</div>
  </div>
)

export type Tone = "good" | "warn" | "bad" | "info" | "none"

const tones: Readonly<Record<string, Tone>> = {
  ready: "good",
  success: "good",
  answered: "good",
  promoted: "good",
  ok: "good",
  cold: "none",
  closed: "good",
  loading: "info",
  running: "info",
  draining: "info",
  Stepping: "info",
  Checking: "info",
  Paused: "warn",
  pending: "warn",
  "half-open": "warn",
  left: "warn",
  interruption: "warn",
  open: "bad",
  failed: "bad",
  refused: "warn",
  failure: "bad",
  firing: "bad",
  rolledBack: "bad",
  aborted: "warn"
}

/** Words that are not shown as they are. */
const labels: Readonly<Record<string, string>> = { rolledBack: "rolled back" }

/** A word with a color; the word alone says it too. */
export const Badge = ({ text, tone }: { readonly text: string; readonly tone?: Tone }) => (
  <span class={`badge ${tone ?? tones[text] ?? "none"}`}>{labels[text] ?? text}</span>
)

/** A share of something as a bar. */
export const Meter = (
  { label, of, tone = "info", value }: {
    readonly label: string
    readonly value: number
    readonly of: number
    readonly tone?: Tone
  }
) => (
  <span
    class={`meter ${tone}`}
    role="meter"
    aria-label={label}
    aria-valuenow={value}
    aria-valuemin={0}
    aria-valuemax={of}
    title={label}
  >
    <span style={{ width: `${of <= 0 ? 0 : Math.min(100, (value / of) * 100)}%` }} />
  </span>
)

export interface Column<A> {
  readonly head: string
  readonly cell: (row: A) => ComponentChildren
  /** Numbers stand at the right. */
  readonly isNumber?: boolean
}

interface TableProps<A> {
  readonly caption: string
  readonly columns: ReadonlyArray<Column<A>>
  readonly rows: ReadonlyArray<A>
  readonly keyOf: (row: A) => string
}

/** A table that scrolls inside its own frame where it is too wide. */
export function Table<A>({ caption, columns, keyOf, rows }: TableProps<A>) {
  const classOf = ({ isNumber }: Column<A>) => isNumber === true ? "number" : undefined
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="visually-hidden">{caption}</caption>
        <thead>
          <tr>{columns.map((one) => <th key={one.head} scope="col" class={classOf(one)}>{one.head}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map((one, index) =>
                index === 0
                  ? <th key={one.head} scope="row">{one.cell(row)}</th>
                  : <td key={one.head} class={classOf(one)}>{one.cell(row)}</td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

/** A figure with its name. */
export const Figure = (
  { hint, label, tone, value }: {
    readonly label: string
    readonly value: string
    readonly hint?: string | undefined
    readonly tone?: Tone
  }
) => (
  <div class={`figure ${tone ?? ""}`}>
    <dt>{label}</dt>
    <dd>
      <span>{value}</span>
      {hint !== undefined && <small>{hint}</small>}
    </dd>
  </div>
)
