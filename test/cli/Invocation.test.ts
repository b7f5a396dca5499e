import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { asCalled, invocation } from "../../src/cli/Invocation.ts"

describe("invocation", () => {
  it.each([
    ["the sources, by npm in a clone", "/clone/src/main.ts", "/clone", "npm run troupe --"],
    ["the sources, from elsewhere", "/clone/src/main.ts", "/home", "node /clone/src/main.ts"],
    ["the build, in a clone", "/clone/dist/main.js", "/clone", "node dist/main.js"],
    ["a path with a space", "/my clone/dist/main.js", "/home", "node \"/my clone/dist/main.js\""],
    ["a project's package", "/project/node_modules/.bin/troupe", "/project", "npx troupe"],
    ["a package by its file", "C:\\npm\\node_modules\\troupe\\dist\\main.js", "C:\\", "npx troupe"],
    ["an installed command", "/usr/local/bin/troupe", "/home", "troupe"]
  ])("is told of %s", (_, entry, folder, expected) => {
    assert.strictEqual(invocation(entry, folder), expected)
  })
})

describe("asCalled", () => {
  it.each([
    ["Start one with: troupe serve; or name another", "Start one with: node dist/main.js serve; or name another"],
    ["Use `troupe models rm`.", "Use `node dist/main.js models rm`."],
    ["echo 7 | troupe run a --json", "echo 7 | node dist/main.js run a --json"],
    ["troupe <subcommand> [flags]", "node dist/main.js <subcommand> [flags]"],
    ["/var/troupe models/a.gguf cannot be read", "/var/troupe models/a.gguf cannot be read"],
    ["What troupe.yaml says of a troupe of models", "What troupe.yaml says of a troupe of models"]
  ])("writes %j as it can be typed", (text, expected) => {
    assert.strictEqual(asCalled(text, "node dist/main.js"), expected)
  })
})
