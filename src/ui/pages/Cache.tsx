/** What the response cache holds, how often it answers, and clearing it. */
import { useSignal } from "@preact/signals"
import type { Overview } from "../../layers/http/OverviewSchema.ts"
import { bytes, count, percent } from "../format.ts"
import { overview } from "../live.ts"
import { Empty, Figure, Table, Title } from "../parts/Basics.tsx"
import { Confirm } from "../parts/Confirm.tsx"
import { attempt } from "../parts/Notices.tsx"
import { ReadOnly } from "../parts/ReadOnly.tsx"
import { ask, session } from "../session.ts"

type Contents = Overview["cache"]

const Figures = ({ cache }: { readonly cache: Contents }) => {
  const hits = Object.values(cache.hits).reduce((sum, hit) => sum + hit, 0)
  const looked = hits + cache.misses
  return (
    <dl class="figures">
      <Figure label="Hit rate" value={percent(looked === 0 ? undefined : hits / looked)} hint="since the start" />
      <Figure label="Hits" value={count(hits)} hint={`${count(cache.misses)} misses`} />
      <Figure label="Not looked up" value={count(cache.bypasses)} hint="not deterministic, or switched off" />
      <Figure
        label="Store"
        value={cache.store ? "yes" : "none"}
        hint={cache.store ? "a database or Redis keeps answers" : "memory only"}
      />
    </dl>
  )
}

const tierNames = {
  memory: "Memory, ready to be sent",
  compact: "Memory, as text",
  semantic: "Similar questions"
} as const

const Tiers = ({ cache }: { readonly cache: Contents }) => (
  <Table
    caption="Tiers of the cache"
    columns={[
      { head: "Tier", cell: (tier) => tierNames[tier] },
      { head: "Entries", cell: (tier) => count(cache[tier].entries), isNumber: true },
      { head: "Size", cell: (tier) => bytes(cache[tier].bytes), isNumber: true }
    ]}
    rows={["memory", "compact", "semantic"] as const}
    keyOf={(tier) => tier}
  />
)

const Hits = ({ hits }: Pick<Contents, "hits">) =>
  Object.keys(hits).length === 0 ? null : (
    <Table
      caption="Hits by tier"
      columns={[
        { head: "Answered from", cell: ([tier]) => tier },
        { head: "Hits", cell: ([, hit]) => count(hit), isNumber: true }
      ]}
      rows={Object.entries(hits)}
      keyOf={([tier]) => tier}
    />
  )

const Questions = ({ semantic }: Pick<Contents, "semantic">) =>
  semantic.questions.length === 0 ? null : (
    <>
      <h2>Similar questions</h2>
      <Table
        caption="Questions by model and tenant"
        columns={[
          { head: "Model", cell: ({ model }) => model },
          { head: "Tenant", cell: ({ tenant }) => tenant },
          { head: "Questions", cell: ({ entries }) => count(entries), isNumber: true },
          { head: "Size", cell: ({ bytes: size }) => bytes(size), isNumber: true },
          { head: "Answers given", cell: ({ hits }) => count(hits), isNumber: true }
        ]}
        rows={semantic.questions}
        keyOf={({ model, tenant }) => `${model} ${tenant}`}
      />
    </>
  )

const Clear = ({ models }: { readonly models: ReadonlyArray<string> }) => {
  const model = useSignal("")
  const query = model.value === "" ? "all=true" : `model=${encodeURIComponent(model.value)}`
  const what = model.value === "" ? "all cached answers" : `the cached answers of ${model.value}`
  return (
    <div class="tools">
      <label>
        <span class="visually-hidden">Answers to clear</span>
        <select value={model.value} onChange={(event) => (model.value = event.currentTarget.value)}>
          <option value="">All models</option>
          {models.map((name) => <option key={name}>{name}</option>)}
        </select>
      </label>
      <Confirm
        label="Clear"
        isDangerous
        of={what}
        question={`Clear ${what}, also in the store? The next equal requests call the models again.`}
        disabled={!session.value.mayChange}
        action={() => attempt(() => ask(`/admin/cache?${query}`, { method: "DELETE" }), `Cleared ${what}.`)}
      />
    </div>
  )
}

export const Cache = () => {
  const snapshot = overview.value
  if (snapshot === undefined) {
    return (
      <>
        <Title text="Cache" />
        <p class="muted">Waiting for the first figures…</p>
      </>
    )
  }
  const { cache, models } = snapshot
  const isUnused = Object.keys(cache.hits).length === 0 && cache.misses === 0 && cache.memory.entries === 0
  return (
    <>
      <Title text="Cache">
        <Clear models={models.map(({ model }) => model)} />
      </Title>
      <ReadOnly />
      <Figures cache={cache} />
      {isUnused && (
        <Empty title="No answer has been cached">
          Set <code>cache.when: deterministic</code> in troupe.yaml, and send the same request twice with{" "}
          <code>temperature: 0</code>. In production, that is the default.
        </Empty>
      )}
      <Tiers cache={cache} />
      <Hits hits={cache.hits} />
      <Questions semantic={cache.semantic} />
    </>
  )
}
