// Completes package-lock.json with the optional packages of other platforms.
//
// npm leaves them out when the registry it asked had no copy of them, and `npm ci` then refuses the lock file as out of
// step. Their versions are those their parents name; their platforms are in their names. Run it after `npm install`.
import { readFileSync, writeFileSync } from "node:fs"

const systems = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"]
const processors = ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "x64"]
const synonyms = { armv7: "arm", armeabi: "arm", gnueabihf: "gnu", gnu: "glibc", eabi: "arm", mac: "darwin", win: "win32" }

/** `@scope/linux-arm64-musl` as npm's `os`, `cpu` and `libc`. */
const platformOf = (name) => {
  const words = name.split("/").at(-1).split("-").map((word) => synonyms[word] ?? word)
  const pick = (known) => words.filter((word) => known.includes(word)).slice(0, 1)
  const os = pick(systems)
  const cpu = pick(processors)
  if (os.length === 0 || cpu.length === 0) throw new Error(`What platform is ${name} for?`)
  const libc = words.includes("musl") ? ["musl"] : words.some((word) => /^(?:glibc|gnu)/.test(word)) ? ["glibc"] : []
  return { os, cpu, ...(libc.length > 0 && os[0] === "linux" ? { libc } : {}) }
}

const file = new URL("../package-lock.json", import.meta.url)
const lock = JSON.parse(readFileSync(file, "utf8"))
const added = []
for (const parent of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    const path = `node_modules/${name}`
    if (path in lock.packages || !/^\d/.test(version)) continue
    lock.packages[path] = { version, optional: true, ...(parent.dev ? { dev: true } : {}), ...platformOf(name) }
    added.push(`${name}@${version}`)
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => a.localeCompare(b, "en")))
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
process.stdout.write(`${added.length} added${added.length > 0 ? `: ${added.join(", ")}` : ""}\n`)
