/** Tables of the settings for `docs/configuration.md`, from the schema that editors read. */

interface Node {
  readonly type?: string
  readonly description?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly minimum?: number
  readonly maximum?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly anyOf?: ReadonlyArray<Node>
  readonly items?: Node
  readonly prefixItems?: ReadonlyArray<Node>
  readonly properties?: Readonly<Record<string, Node>>
  readonly required?: ReadonlyArray<string>
  readonly additionalProperties?: Node | boolean
}

const isReference = ({ pattern = "" }: Node): boolean => pattern.startsWith("^\\$\\{")

/** The alternatives of a node, without `${NAME}`, which every scalar accepts. */
const alternatives = (node: Node): ReadonlyArray<Node> =>
  node.anyOf === undefined
    ? isReference(node) ? [] : [node]
    : node.anyOf.flatMap(alternatives)

const range = ({ maximum = Number.MAX_SAFE_INTEGER, minimum }: Node): string =>
  minimum === undefined
    ? ""
    : maximum === Number.MAX_SAFE_INTEGER
    ? ` from ${minimum}`
    : ` ${minimum} to ${maximum}`

const kindOf = (node: Node): string => {
  if (node.enum !== undefined) return node.enum.map((value) => `\`${String(value)}\``).join(", ")
  if (node.type === "array") return "list"
  if (node.type === "object") return "mapping"
  if (node.type === "string") return node.maxLength === 100 ? "duration" : "text"
  return `${node.type ?? "value"}${range(node)}`
}

const kindsOf = (node: Node): string => {
  const found = alternatives(node)
  const isBytes = found.length === 2 && found[0]?.type === "string" && found[1]?.type === "integer"
  return isBytes ? "bytes" : [...new Set(found.map(kindOf))].join(" or ")
}

const defaultIn = /\. Default (.+?)\.?$/s

const cell = (text: string): string => text.replaceAll("|", "\\|")

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)

const requiredAt = (path: string): string =>
  path.includes(".") ? `required in \`${path.slice(0, path.lastIndexOf("."))}\`` : "required"

const row = (path: string, node: Node, isRequired: boolean): string => {
  const { description = "" } = node
  const [, byDefault = isRequired ? requiredAt(path) : ""] = defaultIn.exec(description) ?? []
  const meaning = description.replace(defaultIn, ".").replace(/\.\.$/, ".")
  return `| \`${path}\` | ${cell(kindsOf(node))} | ${cell(byDefault)} | ${cell(capital(meaning))} |`
}

const rows = (node: Node, path: string, omit: ReadonlyArray<string>): ReadonlyArray<string> =>
  Object.entries(node.properties ?? {}).flatMap(([name, field]) => {
    if (omit.includes(name)) return []
    const own = path === "" ? name : `${path}.${name}`
    const isSection = field.properties !== undefined
    return [
      ...(isSection ? [] : [row(own, field, node.required?.includes(name) ?? false)]),
      ...(isSection ? rows(field, own, []) : [])
    ]
  })

const table = (node: Node, omit: ReadonlyArray<string> = []): string =>
  ["| Setting | Value | Default | Meaning |", "|---|---|---|---|", ...rows(node, "", omit)].join("\n")

const itemOf = (node: Node): Node => node.items ?? {}

/** The settings of the top level that are neither sections nor maps of names. */
const scalarsOf = (properties: Readonly<Record<string, Node>>): Readonly<Record<string, Node>> =>
  Object.fromEntries(
    Object.entries(properties).filter(([, node]) => alternatives(node).every(({ type }) => type !== "object"))
  )

/** The settings that all kinds of deployments have in the same form. */
const sharedOf = (kinds: ReadonlyArray<Node>): Readonly<Record<string, Node>> => {
  const [first, ...others] = kinds.map(({ properties = {} }) => properties)
  return Object.fromEntries(
    Object.entries(first ?? {}).filter(([name, node]) =>
      others.every((properties) => JSON.stringify(properties[name]) === JSON.stringify(node))
    )
  )
}

/** The settings of a rule of the user's own. */
const alertRuleIn = ({ properties = {} }: Node): Node => {
  const rules = properties["rules"]?.additionalProperties as Node | undefined
  return rules?.anyOf?.[0] ?? {}
}

/** The tables by name: each section of the file, and each kind of deployment. */
export const tablesOf = (file: unknown): ReadonlyMap<string, string> => {
  const { properties = {} } = file as Node
  const named = (section: string): Node => properties[section]?.additionalProperties as Node
  const kinds = itemOf(named("models").properties?.["deployments"] ?? {}).anyOf ?? []
  const shared = sharedOf(kinds)
  return new Map([
    ...[
      "server",
      "engines",
      "memory",
      "circuits",
      "keyCooldowns",
      "embeddingBatches",
      "budgetAlerts",
      "alerts",
      "decisions",
      "deploy",
      "reload",
      "store",
      "storage",
      "redis",
      "responses",
      "cache",
      "ledger",
      "guard",
      "scaling",
      "troupe",
      "telemetry"
    ].map(
      (section) => [section, table({ properties: { [section]: properties[section]! } })] as const
    ),
    ["top", table({ properties: scalarsOf(properties) })],
    ["keys", table(named("keys"))],
    ["limits", table(named("limits").anyOf![0]!)],
    ["budgets", table(named("budgets"))],
    ["alert rules", table(alertRuleIn(properties["alerts"]!))],
    ["policies", table(named("policies"))],
    ["models", table(named("models"), ["deployments"])],
    ["deployments", table({ properties: shared })],
    ...kinds.map((kind) => {
      const [engine] = kind.properties?.["engine"]?.enum ?? []
      return [`deployment ${String(engine)}`, table(kind, ["engine", ...Object.keys(shared)])] as const
    })
  ])
}

/** A document with its tables regenerated. */
export const withTables = (text: string, tables: ReadonlyMap<string, string>): string =>
  text.replaceAll(
    /(<!-- settings: (.+?) -->\n)[^]*?(<!-- end -->)/g,
    (_, begin: string, name: string, end: string) => `${begin}${tables.get(name) ?? `No table "${name}".`}\n${end}`
  )
