/** What is around every page: navigation, the state of the connection, and notices. */
import type { JSX } from "preact"
import { useEffect } from "preact/hooks"
import { connection, overview, start } from "../live.ts"
import { Alerts } from "../pages/Alerts.tsx"
import { Cache } from "../pages/Cache.tsx"
import { Costs } from "../pages/Costs.tsx"
import { Models } from "../pages/Models.tsx"
import { Overview } from "../pages/Overview.tsx"
import { Playground } from "../pages/Playground.tsx"
import { Requests } from "../pages/Requests.tsx"
import { Rollouts } from "../pages/Rollouts.tsx"
import { firing, useFiring } from "../polled.ts"
import type { PageName } from "../route.ts"
import { hrefOf, pages, route } from "../route.ts"
import { session, signOut } from "../session.ts"
import { Notices } from "./Notices.tsx"
import { ThemeChoice } from "./ThemeChoice.tsx"

const views: Readonly<Record<PageName, () => JSX.Element>> = {
  overview: Overview,
  requests: Requests,
  models: Models,
  costs: Costs,
  cache: Cache,
  rollouts: Rollouts,
  playground: Playground,
  alerts: Alerts
}

const FiringCount = () =>
  firing.value.length === 0
    ? null
    : (
      <span class={`badge ${firing.value.some(({ severity }) => severity === "critical") ? "bad" : "warn"}`}>
        {firing.value.length}
        <span class="visually-hidden">firing</span>
      </span>
    )

const Navigation = () => (
  <nav aria-label="Pages">
    <ul>
      {Object.entries(pages).map(([name, label]) => (
        <li key={name}>
          <a href={hrefOf(name as PageName)} aria-current={route.value.page === name ? "page" : undefined}>
            {label}
            {name === "alerts" && <FiringCount />}
          </a>
        </li>
      ))}
    </ul>
  </nav>
)

const connectionTexts = {
  connecting: "Connecting",
  live: "Live",
  lost: "No connection"
} as const

const Connection = () => (
  <span class={`connection ${connection.value.phase}`} role="status">{connectionTexts[connection.value.phase]}</span>
)

const skip = () => document.querySelector<HTMLElement>("main h1")?.focus()

const Header = () => (
  <header>
    <button class="skip" type="button" onClick={skip}>Skip to content</button>
    <span class="brand">Troupe</span>
    <span class="muted version">{overview.value?.service.version}</span>
    <Connection />
    <span class="space" />
    <ThemeChoice />
    {session.value.needsKey && <button type="button" onClick={() => signOut()}>Sign out</button>}
  </header>
)

const Lost = () => {
  const { notice, phase } = connection.value
  return phase === "lost" ? <p class="notice bad" role="alert">{notice}</p> : null
}

export const Frame = () => {
  useEffect(start, [])
  useFiring()
  const View = views[route.value.page]
  return (
    <div class="frame">
      <Header />
      <Navigation />
      <main>
        <Lost />
        <Notices />
        <View />
      </main>
    </div>
  )
}
