/** The files of `deploy` and the Dockerfile, as far as they can be checked without Docker and Kubernetes. */
import { assert } from "@effect/vitest"
import { validate as dockerfileProblems, ValidationSeverity } from "dockerfile-utils"
import { Yaml } from "effect/encoding"
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import { invoke } from "./support/CommandLine.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const read = (file: string): string => readFileSync(join(root, file), "utf8")
const yaml = (file: string): unknown => Yaml.parse(read(file))
const dockerfile = read("Dockerfile")

/** A document of Kubernetes. */
interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string }
}

const manifests = globSync("deploy/kubernetes/*.yaml", { cwd: root }).toSorted()

/**
 * What is wrong with these documents by the types of Kubernetes' API. Unknown and misspelt fields are: they are literals of the
 * type.
 */
const kubernetesProblems = (documents: ReadonlyArray<Manifest>): string => {
  const folder = mkdtempSync(join(root, "node_modules", ".cache-manifests-"))
  const lines = documents.map((document, index) => {
    const { apiVersion, kind } = document
    const module = apiVersion.includes("/") ? apiVersion : `core/${apiVersion}`
    return `import type { ${kind} as Kind${index} } from "kubernetes-types/${module}"\n` +
      `export const document${index}: Kind${index} = ${JSON.stringify(document)}\n`
  })
  try {
    writeFileSync(join(folder, "manifests.ts"), lines.join(""))
    const compiler = join(root, "node_modules", "typescript", "bin", "tsc")
    const options = [
      "--noEmit",
      "--strict",
      "--skipLibCheck",
      "--module",
      "Preserve",
      "--types",
      "node",
      "--ignoreConfig"
    ]
    return spawnSync(process.execPath, [compiler, ...options, join(folder, "manifests.ts")], { encoding: "utf8" })
      .stdout
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Container {
  readonly image: string
  readonly securityContext: object
  readonly lifecycle: { readonly preStop: { readonly sleep: { readonly seconds: number } } }
}

interface Pods {
  readonly spec: {
    readonly template: {
      readonly spec: { readonly terminationGracePeriodSeconds: number; readonly containers: ReadonlyArray<Container> }
    }
  }
}

interface Compose {
  readonly services: Record<string, {
    readonly image: string
    readonly environment?: Record<string, string>
    readonly stop_grace_period?: string
    readonly volumes?: ReadonlyArray<string>
    readonly depends_on?: object
  }>
  readonly volumes: object
}

const compose = yaml("deploy/compose/compose.yaml") as Compose

/** Variables with any value, for the configurations. */
const variables = {
  TROUPE_KEY: "a-key-of-callers",
  TROUPE_ADMIN_TOKEN: "token",
  POSTGRES_PASSWORD: "p",
  REDIS_PASSWORD: "p"
}

/** Seconds beyond `server.shutdownGrace` in which the processes have ended: `stopMargin` in `src/cli/Serve.ts`. */
const margin = 15
const shutdownGrace = 30

describe("the Dockerfile", () => {
  it("has no problem that the linter knows", () => {
    const all = ValidationSeverity.ERROR
    const problems = dockerfileProblems(dockerfile, {
      deprecatedMaintainer: all,
      directiveCasing: all,
      emptyContinuationLine: all,
      instructionCasing: all,
      instructionCmdMultiple: all,
      instructionEntrypointMultiple: all,
      instructionHealthcheckMultiple: all,
      instructionJSONInSingleQuotes: all,
      instructionWorkdirRelative: all
    })
    assert.deepStrictEqual(problems, [])
    assert.lengthOf(dockerfileProblems("FROM a\nCOP b c\n", {}), 1)
  })

  it("uses the Node.js that the tests run on", () => {
    const { devDependencies } = JSON.parse(read("package.json")) as { devDependencies: Record<string, string> }
    assert.include(dockerfile, `ARG NODE_VERSION=${devDependencies["node"]}\n`)
  })

  it("copies only files that .dockerignore admits and that exist", () => {
    const admitted = read(".dockerignore").split("\n").filter((line) => line.startsWith("!")).map((line) =>
      line.slice(1)
    )
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths]) => paths!.split(" "))
    for (const path of [...admitted, ...copied]) assert.isTrue(existsSync(join(root, path)), path)
    assert.deepStrictEqual(copied.filter((path) => !admitted.includes(path.split("/")[0]!)), [])
    assert.deepStrictEqual(admitted.filter((name) => !copied.some((path) => path.split("/")[0] === name)), [])
  })

  it("runs as an unprivileged user, with arguments that no shell reads", () => {
    assert.match(dockerfile, /^USER 1001:1001$/m)
    assert.match(dockerfile, /^ENTRYPOINT \[/m)
    assert.match(dockerfile, /^CMD \["serve"\]$/m)
    assert.match(dockerfile, /^HEALTHCHECK .* CMD \[/m)
  })
})

describe("compose.yaml", () => {
  it("has no literal secret: every password is a variable of .env.example", () => {
    const names = [...read("deploy/compose/.env.example").matchAll(/^(\w+)=$/gm)].map(([, name]) => name!)
    const text = read("deploy/compose/compose.yaml")
    const used = new Set([...text.matchAll(/\$\{(\w+)/g)].map(([, name]) => name!))
    assert.sameMembers([...used], names)
    for (const { environment = {} } of Object.values(compose.services)) {
      for (const [name, value] of Object.entries(environment)) {
        if (/PASSWORD|KEY|TOKEN|AUTH/.test(name)) assert.match(value, /^\$\{\w+:\?\}$/, name)
      }
    }
  })

  it("names the files and volumes that exist, and images by their version", () => {
    for (const { depends_on: needed = {}, image, volumes = [] } of Object.values(compose.services)) {
      assert.match(image, /:v?\d/)
      for (const volume of volumes) {
        const [from = ""] = volume.split(":")
        if (from.startsWith(".")) assert.isTrue(existsSync(join(root, "deploy/compose", from)), from)
        else assert.property(compose.volumes, from)
      }
      const names = Array.isArray(needed) ? needed as Array<string> : Object.keys(needed)
      for (const name of names) assert.property(compose.services, name)
    }
  })

  it("waits for the service to stop", () => {
    const seconds = Number.parseInt(compose.services["troupe"]!.stop_grace_period!, 10)
    assert.isAtLeast(seconds, shutdownGrace + margin)
  })
})

describe("the manifests of Kubernetes", () => {
  it("have the fields that the API has", () => {
    assert.strictEqual(kubernetesProblems(manifests.map((file) => (yaml(file) as Manifest))), "")
    const wrong = yaml("deploy/kubernetes/service.yaml") as Manifest & { readonly spec: object }
    const found = kubernetesProblems([{ ...wrong, spec: { ...wrong.spec, selectors: {} } } as Manifest])
    assert.match(found, /selectors/)
  })

  it("give the service time to drain", () => {
    const { containers, terminationGracePeriodSeconds } =
      (yaml("deploy/kubernetes/deployment.yaml") as Pods).spec.template.spec
    const { seconds } = containers[0]!.lifecycle.preStop.sleep
    assert.isAtLeast(terminationGracePeriodSeconds, seconds + shutdownGrace + margin)
  })

  it("run the image of compose.yaml, with a read-only root and no privilege", () => {
    const { image, securityContext } = (yaml("deploy/kubernetes/deployment.yaml") as Pods).spec.template.spec
      .containers[0]!
    assert.strictEqual(image, compose.services["troupe"]!.image)
    assert.deepStrictEqual(securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] }
    })
  })
})

describe("the configurations of deploy", () => {
  it("are valid", async () => {
    const folder = mkdtempSync(join(root, "node_modules", ".cache-configuration-"))
    const map = yaml("deploy/kubernetes/configmap.yaml") as { readonly data: Record<string, string> }
    try {
      writeFileSync(join(folder, "kubernetes.yaml"), map.data["troupe.yaml"]!)
      for (const file of [join(folder, "kubernetes.yaml"), join(root, "deploy/compose/troupe.yaml")]) {
        const { code, stderr } = await invoke(["config", "check", "--config", file], {
          env: { ...variables, NODE_ENV: "production" }
        })
        assert.strictEqual(code, 0, stderr)
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe("healthcheck.mjs", () => {
  it("fails where nothing listens", () => {
    const check = () =>
      execFileSync(process.execPath, [join(root, "deploy/healthcheck.mjs")], { env: { PORT: "1" }, stdio: "ignore" })
    assert.throws(check)
  })
})
