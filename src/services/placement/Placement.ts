/**
 * On which node each replica of each model runs, and which of them have to move. Pure: nodes and models in, an assignment and
 * moves out.
 *
 * **When to use**
 *
 * In a program or by an operator that runs Troupe on several machines, for the `models` of each one's configuration. Nothing in
 * Troupe moves models between machines by itself.
 *
 * **Details**
 *
 * A place is the memory of a node or of its GPUs. Every replica fits in its place, and two replicas of a model are never on
 * one node. Replicas that must be loaded come first: those of a lost node, or that do not fit any more, before those of new
 * models; and of these, the models with the fewest replicas left. Then replicas move, as long as a move pays.
 *
 * Requests wait where a place is busy: a place that is busy for a share `load` of the time delays a share `load` of its
 * requests, and gets requests in proportion to `load`. So what all wait in the `horizonMs` is `horizonMs` times the sum of
 * the squares of the loads. A move pays if it reduces that by more than `margin` times what the load takes: the bytes of the
 * file over the rate at which the node gets them, and `coldMs` for caches that are cold.
 *
 * **Gotchas**
 *
 * It is a local search: no single move improves the result, which need not be the best of all. A replica that fits nowhere
 * is in `unplaced`; nothing is moved to make room for it. Placing again with the result as the state moves nothing.
 *
 * **Example**
 *
 * ```ts
 * const { moves } = Placement.plan({
 *   nodes: [{ name: "a", gpuMemory: 24 * 2 ** 30, models: [{ model: "chat" }] }, { name: "b", gpuMemory: 24 * 2 ** 30, models: [] }],
 *   models: [{ name: "chat", memory: 9 * 2 ** 30, replicas: 2, load: 0.4 }]
 * })
 * ```
 */
import { bytesText } from "../../domain/Fields.ts"
import { ordered } from "./MoveOrder.ts"
import type { Replica } from "./Places.ts"
import { deviceOf, nodeOf, placeAt, Places } from "./Places.ts"

/** The memory of a node, or that of its GPUs. */
export type Device = "cpu" | "gpu"

/** A model to be placed. */
export interface Model {
  readonly name: string
  /** Memory of a replica, bytes. */
  readonly memory: number
  /** Size of its file, bytes; default `memory`. */
  readonly file?: number | undefined
  /** Default 1; 0 unloads it. */
  readonly replicas?: number | undefined
  /** The only device that it may run on; default any. */
  readonly device?: Device | undefined
  /** Share of the time that a replica keeps its place busy, 1 for always; default 0. */
  readonly load?: number | undefined
  /** The same without a GPU; default `load`. */
  readonly cpuLoad?: number | undefined
}

/** A replica that a node has loaded. */
export interface Loaded {
  readonly model: string
  /** Default the GPU if the replica fits there, else the memory of the node. */
  readonly device?: Device | undefined
}

/** A machine. */
export interface Node {
  readonly name: string
  /** Memory for models, bytes; default 0. */
  readonly memory?: number | undefined
  /** Memory of GPUs for models, bytes; default 0. */
  readonly gpuMemory?: number | undefined
  /** Share of the time that something else keeps it busy; default 0. */
  readonly load?: number | undefined
  readonly models: ReadonlyArray<Loaded>
  /** Further models whose files it has. */
  readonly files?: ReadonlyArray<string> | undefined
  /** Rate at which it reads files that it has, bytes a second; default 1 GiB. */
  readonly reads?: number | undefined
  /** Rate at which it fetches others, bytes a second; default 100 MiB. */
  readonly downloads?: number | undefined
  /** It does not answer: its models are placed elsewhere. Default false. */
  readonly isLost?: boolean | undefined
}

/** What moves cost and have to save. */
export interface Options {
  /** For how long loads are expected to stay as they are, ms; default an hour. */
  readonly horizonMs: number
  /** How many times its cost a move has to save, at least 1; default 1.2. */
  readonly margin: number
  /** What the cold caches of a replica that has just been loaded cost, ms; default 30 s. */
  readonly coldMs: number
}

/** The options unless given. */
export const defaults: Options = { horizonMs: 3_600_000, margin: 1.2, coldMs: 30_000 }

/** Nodes and models with unique names. */
export interface Input extends Partial<Options> {
  readonly nodes: ReadonlyArray<Node>
  readonly models: ReadonlyArray<Model>
}

/** Where a replica runs. */
export interface Assigned {
  readonly model: string
  readonly node: string
  readonly device: Device
}

/** One step, to be taken after those before it. */
export interface Move {
  readonly type: "load" | "move" | "unload"
  readonly model: string
  /** Left out for `load`. */
  readonly from?: string
  /** Left out for `unload`. */
  readonly to?: string
  /** Of `to`. */
  readonly device?: Device
  /** Duration of the load, ms. */
  readonly loadMs: number
  /** What requests wait less, ms within the horizon; of `move`. */
  readonly savedMs?: number
  /** It has to be unloaded before it is loaded, because memory is short for both; otherwise requests do not notice the move. */
  readonly unloadsFirst: boolean
  readonly reason: string
}

/** Replicas that fit nowhere. */
export interface Unplaced {
  readonly model: string
  readonly replicas: number
  readonly reason: string
}

/** An assignment, and what leads to it. */
export interface Plan {
  readonly assignment: ReadonlyArray<Assigned>
  readonly moves: ReadonlyArray<Move>
  readonly unplaced: ReadonlyArray<Unplaced>
  /** Waiting and `margin` times the loads, ms within the horizon: without moves that are not necessary, and as planned. */
  readonly cost: { readonly stayMs: number; readonly plannedMs: number }
}

/** A replica that ends, and why. */
interface Ended {
  readonly model: string
  readonly place: number
  readonly reason: string
}

const byLoad = (models: ReadonlyArray<Model>) => (one: number, other: number): number =>
  (models[other]!.load ?? 0) - (models[one]!.load ?? 0) || one - other

/** The least gain that is no error of the arithmetic, ms. */
const leastGainMs = 1e-3

class Planner {
  readonly #places: Places
  readonly #options: Options
  readonly #index: ReadonlyMap<string, number>
  readonly #replicas: Array<Replica> = []
  readonly #ended: Array<Ended> = []
  /** Replicas that are not where they were, for each model, with the reason. */
  readonly #lost: ReadonlyArray<Array<string>>

  constructor({ models, nodes, ...given }: Input) {
    this.#options = { ...defaults, ...given }
    this.#places = new Places(nodes, models, this.#options)
    this.#index = new Map(models.map(({ name }, index) => [name, index]))
    this.#lost = models.map(() => [])
  }

  plan(): Plan {
    for (const node of this.#places.nodes.keys()) this.#keep(node)
    this.#endSurplus()
    const stayMs = this.#settle()
    return {
      assignment: this.#replicas.map(({ model, place }) => ({
        model: this.#places.models[model]!.name,
        node: this.#places.nodes[nodeOf(place)]!.name,
        device: deviceOf(place)
      })),
      moves: [...this.#ended.map((one) => this.#unload(one)), ...this.#moves()],
      unplaced: this.#unplaced(),
      cost: { stayMs, plannedMs: this.#cost }
    }
  }

  /** Keeps what a node has loaded, as far as it is wanted and fits. */
  #keep(node: number): void {
    const { isLost = false, models, name } = this.#places.nodes[node]!
    const known = models.flatMap(({ device, model }) => {
      const index = this.#index.get(model)
      if (index !== undefined) return [{ device, index }]
      if (!isLost) this.#ended.push({ model, place: placeAt(node, "cpu"), reason: "not in the list of models" })
      return []
    })
    const inOrder = byLoad(this.#places.models)
    for (const { device, index } of known.toSorted((one, other) => inOrder(one.index, other.index))) {
      if (isLost) this.#lost[index]!.push(`${name} is lost`)
      else this.#keepOne(index, node, device)
    }
  }

  #keepOne(model: number, node: number, device: Device | undefined): void {
    const places = device === undefined ? [placeAt(node, "gpu"), placeAt(node, "cpu")] : [placeAt(node, device)]
    const place = places.find((one) => this.#places.fits(model, one))
    const { name } = this.#places.models[model]!
    if (place !== undefined && !this.#places.has(model, node)) {
      return this.#add({ model, origin: place, place: -1 }, place)
    }
    const reason = place === undefined
      ? `does not fit on ${this.#places.nodes[node]!.name}`
      : "a second replica on its node"
    this.#lost[model]!.push(reason)
    this.#ended.push({ model: name, place: places[0]!, reason })
  }

  #add(replica: Replica, place: number): void {
    this.#replicas.push(replica)
    this.#places.put(replica, place)
  }

  /** Ends the replicas above what is wanted, those of the busiest nodes first. */
  #endSurplus(): void {
    const { load, models } = this.#places
    for (const [index, { name, replicas = 1 }] of models.entries()) {
      const own = this.#replicas.filter(({ model }) => model === index)
      if (own.length <= replicas) continue
      const busiest = own.toSorted((one, other) => load[other.place]! - load[one.place]!)
      for (const replica of busiest.slice(0, own.length - replicas)) {
        this.#ended.push({
          model: name,
          place: replica.place,
          reason: `${own.length} replica${own.length === 1 ? "" : "s"}, ${replicas} wanted`
        })
        this.#places.take(replica)
        this.#replicas.splice(this.#replicas.indexOf(replica), 1)
      }
    }
  }

  /** The replicas that have to be loaded, the most urgent first. */
  #missing(): ReadonlyArray<Replica> {
    const { models } = this.#places
    const counts = models.map(() => 0)
    for (const { model } of this.#replicas) counts[model]!++
    const missing = models.flatMap(({ replicas = 1 }, model) =>
      Array.from({ length: Math.max(0, replicas - counts[model]!) }, (_, at) => {
        const lostBy = this.#lost[model]![at]
        const replica: Replica = { model, origin: -1, place: -1, ...(lostBy === undefined ? {} : { lostBy }) }
        return { replica, left: counts[model]! + at }
      })
    )
    const inOrder = byLoad(models)
    return missing.toSorted((one, other) =>
      Number(one.replica.lostBy === undefined) - Number(other.replica.lostBy === undefined) ||
      one.left - other.left ||
      inOrder(one.replica.model, other.replica.model)
    ).map(({ replica }) => replica)
  }

  /** Places and improves until nothing changes; returns the cost without what improves it, ms. */
  #settle(): number {
    let stayMs = this.#cost
    for (;;) {
      const before = this.#cost
      this.#placeMissing()
      stayMs += this.#cost - before
      let improved = false
      while (this.#improve()) improved = true
      // Replicas that have moved may have made room for those that are missing.
      if (!improved || this.#missing().length === 0) return stayMs
    }
  }

  #placeMissing(): void {
    for (const replica of this.#missing()) {
      const place = this.#best(replica, Number.POSITIVE_INFINITY)
      if (place !== undefined) this.#add(replica, place)
    }
  }

  #unplaced(): ReadonlyArray<Unplaced> {
    const left = new Map<number, number>()
    for (const { model } of this.#missing()) left.set(model, (left.get(model) ?? 0) + 1)
    return [...left].map(([model, replicas]) => ({
      model: this.#places.models[model]!.name,
      replicas,
      reason: this.#whyUnplaced(model)
    }))
  }

  #whyUnplaced(model: number): string {
    const { free, models, nodes } = this.#places
    const { device, memory } = models[model]!
    const devices = device === undefined ? ["gpu", "cpu"] as const : [device]
    const places = devices.flatMap((device) => this.#places.inOrder(device))
    const withRoom = places.filter((place) => free[place]! >= memory)
    if (withRoom.length > 0) return "every node with enough memory has a replica already"
    const [place] = places.toSorted((one, other) => free[other]! - free[one]!)
    if (nodes.every(({ isLost }) => isLost === true)) return "every node is lost"
    const where = place === undefined || free[place] === 0
      ? "none is free"
      : `at most ${bytesText(free[place]!)} are free, on ${nodes[nodeOf(place)]!.name}`
    return `needs ${bytesText(memory)} of ${device === undefined ? "" : `${device} `}memory; ${where}`
  }

  /** What the loads of a replica at its place have cost, ms. */
  #paidMs({ model, origin, place }: Replica): number {
    return place === origin ? 0 : this.#options.margin * this.#places.loadMs(model, nodeOf(place))
  }

  /** Waiting, and what the loads cost, ms. */
  get #cost(): number {
    return this.#replicas.reduce((sum, replica) => sum + this.#paidMs(replica), this.#places.waitingMs)
  }

  /** The place where a replica costs least, if that is less than this, ms; other than where it is. */
  #best(replica: Replica, below: number): number | undefined {
    const places = this.#places
    const { model, origin, place: before } = replica
    const least = { cost: below, place: undefined as number | undefined }
    const look = (place: number) => {
      const node = nodeOf(place)
      if (place === before || !places.fits(model, place)) return
      if (places.has(model, node) && (before === -1 || nodeOf(before) !== node)) return
      const paid = place === origin ? 0 : this.#options.margin * places.loadMs(model, node)
      const cost = places.addedMs(places.loadOf(model, deviceOf(place)), places.load[place]!) + paid
      if (cost >= least.cost) return
      least.cost = cost
      least.place = place
    }
    if (origin !== -1) look(origin)
    const paid = this.#options.margin * places.leastLoadMs(model)
    for (const device of ["gpu", "cpu"] as const) {
      const own = places.loadOf(model, device)
      for (const place of places.inOrder(device)) {
        // The places that follow are busier.
        if (places.addedMs(own, places.load[place]!) + paid >= least.cost) break
        look(place)
      }
    }
    return least.place
  }

  /** Moves each replica that gains by it, those of the busiest places first; whether there was one. */
  #improve(): boolean {
    const places = this.#places
    const { load } = places
    let improved = false
    for (const replica of this.#replicas.toSorted((one, other) => load[other.place]! - load[one.place]!)) {
      const { model, place } = replica
      const own = places.loadOf(model, deviceOf(place))
      const now = places.addedMs(own, load[place]! - own) + this.#paidMs(replica)
      const better = this.#best(replica, now - leastGainMs)
      if (better === undefined) continue
      places.take(replica)
      places.put(replica, better)
      improved = true
    }
    return improved
  }

  #unload({ model, place, reason }: Ended): Move {
    const from = this.#places.nodes[nodeOf(place)]!.name
    return { type: "unload", model, from, loadMs: 0, unloadsFirst: false, reason }
  }

  #moves(): ReadonlyArray<Move> {
    const changed = this.#replicas.filter(({ origin, place }) => origin !== place)
    return ordered(this.#places, this.#replicas, changed).map(({ replica, unloadsFirst }) =>
      this.#move(replica, unloadsFirst)
    )
  }

  #move(replica: Replica, unloadsFirst: boolean): Move {
    const { model, origin, place } = replica
    const { models, nodes } = this.#places
    const { name, replicas = 1 } = models[model]!
    const to = nodes[nodeOf(place)]!.name
    const loadMs = this.#places.loadMs(model, nodeOf(place))
    const shared = { model: name, to, device: deviceOf(place), loadMs, unloadsFirst }
    if (origin === -1) return { type: "load", ...shared, reason: replica.lostBy ?? `${replicas} wanted` }
    const savedMs = this.#savedMs(replica)
    return { type: "move", ...shared, from: nodes[nodeOf(origin)]!.name, savedMs, reason: "requests wait less" }
  }

  /** What requests would wait more if it were where it was. */
  #savedMs(replica: Replica): number {
    const { model, origin, place } = replica
    const places = this.#places
    const here = places.loadOf(model, deviceOf(place))
    const there = places.addedMs(places.loadOf(model, deviceOf(origin)), places.load[origin]!)
    return there - places.addedMs(here, places.load[place]! - here)
  }
}

/**
 * Places the replicas of all models.
 *
 * @param input nodes and models, each with a name of its own; sizes in bytes
 */
export const plan = (input: Input): Plan => new Planner(input).plan()
