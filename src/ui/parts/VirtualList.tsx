/**
 * A table of many rows of equal height. The document contains only the visible ones.
 *
 * **Details**
 *
 * The arrow keys, Page Up, Page Down, Home and End move the focus from row to row. While the newest row is not in view, rows that
 * are added before it do not move what is read.
 */
import { useSignal } from "@preact/signals"
import type { ComponentChildren } from "preact"
import { useEffect, useLayoutEffect, useRef } from "preact/hooks"

export interface ListColumn<A> {
  readonly head: string
  readonly className: string
  readonly cell: (row: A) => ComponentChildren
}

interface VirtualListProps<A> {
  readonly label: string
  readonly columns: ReadonlyArray<ListColumn<A>>
  /** The first one is at the top. */
  readonly rows: ReadonlyArray<A>
  readonly keyOf: (row: A) => string
  readonly selected: string | undefined
}

/** Pixels, as in the style sheet. */
const rowHeight = 28

/** Rows outside of the view that are in the document, for quick scrolling. */
const beyond = 8

const stepsOf = (page: number): Readonly<Record<string, number>> => ({
  ArrowDown: 1,
  ArrowUp: -1,
  PageDown: page,
  PageUp: -page,
  Home: -Infinity,
  End: Infinity
})

const indexOf = (target: EventTarget | null): number => {
  const row = (target as HTMLElement | null)?.closest<HTMLElement>("[data-index]")
  return Number(row?.dataset["index"] ?? 0)
}

/** Scrolls to a row and focuses its link once it is in the document. */
const focusRow = (frame: HTMLElement, index: number): void => {
  const top = index * rowHeight
  const height = frame.clientHeight - rowHeight
  if (top < frame.scrollTop) frame.scrollTop = top
  else if (top + rowHeight > frame.scrollTop + height) frame.scrollTop = top + rowHeight - height
  requestAnimationFrame(() =>
    requestAnimationFrame(() => frame.querySelector<HTMLElement>(`[data-index="${index}"] a`)?.focus())
  )
}

/** Keeps the rows in view where they are when others are added before them. */
function useAnchor<A>(frame: { readonly current: HTMLElement | null }, { keyOf, rows }: VirtualListProps<A>) {
  const first = useRef<string | undefined>(undefined)
  useLayoutEffect(() => {
    const before = first.current
    first.current = rows[0] === undefined ? undefined : keyOf(rows[0])
    const element = frame.current!
    if (before === undefined || before === first.current || element.scrollTop === 0) return
    const added = rows.findIndex((row) => keyOf(row) === before)
    if (added > 0) element.scrollTop += added * rowHeight
  })
}

interface RowProps<A> {
  readonly columns: ReadonlyArray<ListColumn<A>>
  readonly index: number
  readonly isSelected: boolean
  readonly row: A
}

function Row<A>({ columns, index, isSelected, row }: RowProps<A>) {
  return (
    <div
      role="row"
      aria-rowindex={index + 2}
      aria-current={isSelected}
      data-index={index}
      class={isSelected ? "row selected" : "row"}
      style={{ transform: `translateY(${index * rowHeight}px)` }}
    >
      {columns.map(({ cell, className, head }) => (
        <span key={head} role="cell" class={`cell ${className}`}>{cell(row)}</span>
      ))}
    </div>
  )
}

function Head<A>({ columns }: { readonly columns: ReadonlyArray<ListColumn<A>> }) {
  return (
    <div role="rowgroup" class="head">
      <div role="row" aria-rowindex={1} class="row">
        {columns.map(({ className, head }) => (
          <span key={head} role="columnheader" class={`cell ${className}`}>{head}</span>
        ))}
      </div>
    </div>
  )
}

export function VirtualList<A>(props: VirtualListProps<A>) {
  const { columns, keyOf, label, rows, selected } = props
  const frame = useRef<HTMLDivElement>(null)
  const top = useSignal(0)
  const height = useSignal(600)
  useAnchor(frame, props)
  useEffect(() => {
    const observer = new ResizeObserver(() => (height.value = frame.current?.clientHeight ?? 600))
    observer.observe(frame.current!)
    return () => observer.disconnect()
  }, [])
  const begin = Math.max(0, Math.floor(top.value / rowHeight) - beyond)
  const end = Math.min(rows.length, Math.ceil((top.value + height.value) / rowHeight) + beyond)
  const move = (event: KeyboardEvent) => {
    const by = stepsOf(Math.floor(height.value / rowHeight) - 2)[event.key]
    if (by === undefined || rows.length === 0) return
    event.preventDefault()
    const isInside = event.target !== frame.current
    const next = isInside ? indexOf(event.target) + by : by > 0 ? 0 : by
    focusRow(frame.current!, Math.max(0, Math.min(rows.length - 1, next)))
  }
  return (
    <div
      ref={frame}
      class="list"
      role="table"
      aria-label={label}
      aria-rowcount={rows.length + 1}
      tabIndex={0}
      onKeyDown={move}
      onScroll={(event) => (top.value = event.currentTarget.scrollTop)}
    >
      <Head columns={columns} />
      <div role="rowgroup" class="body" style={{ height: `${rows.length * rowHeight}px` }}>
        {rows.slice(begin, end).map((row, offset) => (
          <Row
            key={keyOf(row)}
            columns={columns}
            index={begin + offset}
            row={row}
            isSelected={keyOf(row) === selected}
          />
        ))}
      </div>
    </div>
  )
}
