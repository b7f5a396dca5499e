/**
 * The page that is shown, as the fragment of the URL: `#requests/dec-1`. A fragment is not sent to the service, and a page
 * can be linked to, such as one request.
 */
import { signal } from "@preact/signals"

export const pages = {
  overview: "Overview",
  requests: "Requests",
  models: "Models",
  costs: "Costs and limits",
  cache: "Cache",
  rollouts: "Rollouts",
  playground: "Playground",
  alerts: "Alerts"
} as const
export type PageName = keyof typeof pages

export interface Route {
  readonly page: PageName
  /** What the page shows in detail, such as the id of a request. */
  readonly detail: string | undefined
}

const isPage = (name: string): name is PageName => Object.hasOwn(pages, name)

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const read = (): Route => {
  const [page = "", ...rest] = location.hash.slice(1).split("/")
  const detail = rest.length === 0 ? undefined : decoded(rest.join("/"))
  return isPage(page) ? { page, detail } : { page: "overview", detail: undefined }
}

export const route = signal<Route>(read())

/** The address of a page, for links. */
export const hrefOf = (page: PageName, detail?: string): string =>
  `#${page}${detail === undefined ? "" : `/${encodeURIComponent(detail)}`}`

export const go = (page: PageName, detail?: string): void => {
  location.hash = hrefOf(page, detail)
}

/** Follows the address. A screen reader reads the heading of a page that was chosen. */
export const follow = (): void => {
  addEventListener("hashchange", () => {
    const before = route.value.page
    route.value = read()
    document.title = `${pages[route.value.page]} · Troupe`
    if (before !== route.value.page) {
      requestAnimationFrame(() => document.querySelector<HTMLElement>("main h1")?.focus())
    }
  })
  document.title = `${pages[route.value.page]} · Troupe`
}
