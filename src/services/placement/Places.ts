/**
 * The places that replicas can have while a placement is computed: of each node its memory and the memory of its GPUs, with
 * what is free there and how busy it is. Mutable, and local to one computation.
 *
 * **Details**
 *
 * Place `2 * node` is the memory of a node, place `2 * node + 1` that of its GPUs. A thousand nodes are compared for each
 * replica, so what is compared is in typed arrays.
 */
import type { Device, Model, Node, Options } from "./Placement.ts"

/** One copy of a model. */
export interface Replica {
  /** Index of its model. */
  readonly model: number
  /** Where it is loaded now; -1: nowhere. */
  readonly origin: number
  /** Where it is to be; -1: nowhere. */
  place: number
  /** Why it has to be loaded again, if its model is not just new. */
  readonly lostBy?: string
}

/** Bytes a second at which a node reads its own files, and fetches others. */
const defaultReads = 2 ** 30
const defaultDownloads = 100 * 2 ** 20

export const deviceOf = (place: number): Device => place % 2 === 1 ? "gpu" : "cpu"
export const nodeOf = (place: number): number => place >> 1
export const placeAt = (node: number, device: Device): number => 2 * node + (device === "gpu" ? 1 : 0)

const total = (places: Float64Array, of: (value: number) => number): number => {
  let sum = 0
  for (const value of places) sum += of(value)
  return sum
}

export class Places {
  readonly models: ReadonlyArray<Model>
  readonly nodes: ReadonlyArray<Node>
  readonly #options: Options
  /** Those that exist, the idlest first: a node may be lost, or have no GPU. */
  readonly #inOrder: Readonly<Record<Device, Array<number>>>
  /** Bytes. */
  readonly free: Float64Array
  /** Share of the time that it is busy. */
  readonly load: Float64Array
  /** The models of each node. */
  readonly #on: ReadonlyArray<Set<number>>
  /** The models whose files each node has. */
  readonly #files: ReadonlyArray<ReadonlySet<string>>
  readonly #fastest: number

  constructor(nodes: ReadonlyArray<Node>, models: ReadonlyArray<Model>, options: Options) {
    this.nodes = nodes
    this.models = models
    this.#options = options
    this.free = Float64Array.from(
      nodes.flatMap(({ gpuMemory = 0, isLost = false, memory = 0 }) => isLost ? [-1, -1] : [memory, gpuMemory])
    )
    this.load = new Float64Array(this.free.length)
    const all = [...this.free.keys()].filter((place) => this.free[place]! > 0)
    for (const place of all) this.load[place] = nodes[nodeOf(place)]!.load ?? 0
    const inOrder = (device: Device) =>
      all.filter((place) => deviceOf(place) === device).toSorted((one, other) => this.#compare(one, other))
    this.#inOrder = { cpu: inOrder("cpu"), gpu: inOrder("gpu") }
    this.#on = nodes.map(() => new Set())
    this.#files = nodes.map(({ files = [], models }) => new Set([...files, ...models.map(({ model }) => model)]))
    this.#fastest = nodes.reduce((most, { reads = defaultReads }) => Math.max(most, reads), 1)
  }

  #compare(one: number, other: number): number {
    return this.load[one]! - this.load[other]! || one - other
  }

  /** The places of a device, the idlest first. */
  inOrder(device: Device): ReadonlyArray<number> {
    return this.#inOrder[device]
  }

  /** The position of a place in the order, or that at which it belongs. */
  #positionOf(place: number): number {
    const order = this.#inOrder[deviceOf(place)]
    let low = 0
    let high = order.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#compare(order[middle]!, place) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The load of a replica there. */
  loadOf(model: number, device: Device): number {
    const { cpuLoad, load = 0 } = this.models[model]!
    return device === "cpu" ? cpuLoad ?? load : load
  }

  /** Whether a node has a replica of the model. */
  has(model: number, node: number): boolean {
    return this.#on[node]!.has(model)
  }

  /** Whether a replica can be placed there, without regard to others of its model. */
  fits(model: number, place: number): boolean {
    const { device, memory } = this.models[model]!
    return this.free[place]! >= Math.max(1, memory) && (device === undefined || device === deviceOf(place))
  }

  /** ms to load it there: its file, if the node does not have it, and its caches, which are cold. */
  loadMs(model: number, node: number): number {
    const { file, memory, name } = this.models[model]!
    const { downloads = defaultDownloads, reads = defaultReads } = this.nodes[node]!
    const rate = this.#files[node]!.has(name) ? reads : Math.min(reads, downloads)
    return (file ?? memory) / rate * 1000 + this.#options.coldMs
  }

  /** The least that loading it takes anywhere, ms. */
  leastLoadMs(model: number): number {
    const { file, memory } = this.models[model]!
    return (file ?? memory) / this.#fastest * 1000 + this.#options.coldMs
  }

  /** What a load adds to the waiting of all, ms, where others keep a place busy for a share of the time. */
  addedMs(load: number, others: number): number {
    return this.#options.horizonMs * load * (2 * others + load)
  }

  /** What all requests wait, ms. */
  get waitingMs(): number {
    return this.#options.horizonMs * total(this.load, (load) => load * load)
  }

  put(replica: Replica, place: number): void {
    replica.place = place
    this.#change(replica, place, 1)
    this.#on[nodeOf(place)]!.add(replica.model)
  }

  take(replica: Replica): void {
    this.#change(replica, replica.place, -1)
    this.#on[nodeOf(replica.place)]!.delete(replica.model)
    replica.place = -1
  }

  #change({ model }: Replica, place: number, sign: 1 | -1): void {
    const order = this.#inOrder[deviceOf(place)]
    order.splice(this.#positionOf(place), 1)
    this.free[place]! -= sign * this.models[model]!.memory
    this.load[place]! += sign * this.loadOf(model, deviceOf(place))
    order.splice(this.#positionOf(place), 0, place)
  }
}
