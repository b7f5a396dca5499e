import { assert, describe, it } from "@effect/vitest"
import { problemsOf, proxyFor } from "../../../src/services/settings/ProxySettings.ts"

const proxy = "http://proxy.test:3128/"
const both = { HTTPS_PROXY: proxy, HTTP_PROXY: "http://plain.test:8080" }

describe("the proxy for a URL", () => {
  it("is the one for its scheme, lower case first", () => {
    assert.strictEqual(proxyFor("https://api.test/v1", both), proxy)
    assert.strictEqual(proxyFor("http://api.test/v1", both), "http://plain.test:8080/")
    assert.strictEqual(proxyFor("https://api.test", { ...both, https_proxy: "lower.test:1" }), "http://lower.test:1/")
    assert.strictEqual(proxyFor("https://api.test", { ...both, https_proxy: "" }), proxy)
    assert.isUndefined(proxyFor("https://api.test", { HTTP_PROXY: proxy }))
    assert.isUndefined(proxyFor("http://api.test", {}))
    assert.strictEqual(proxyFor("https://api.test", { HTTPS_PROXY: "http://u:p@proxy.test" }), "http://u:p@proxy.test/")
  })

  it("is none for loopback addresses", () => {
    for (const host of ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "localhost."]) {
      assert.isUndefined(proxyFor(`http://${host}:8080/v1`, both), host)
    }
    for (const host of ["localhost.test", "128.0.0.1", "notlocalhost"]) {
      assert.isDefined(proxyFor(`http://${host}:8080/v1`, both), host)
    }
  })

  const cases: ReadonlyArray<
    readonly [noProxy: string, direct: ReadonlyArray<string>, proxied: ReadonlyArray<string>]
  > = [
    ["*", ["https://api.test"], []],
    ["other.test, api.test", ["https://api.test", "https://eu.api.test", "https://API.test."], ["https://napi.test"]],
    [".api.test", ["https://eu.api.test", "https://api.test"], ["https://api.test.evil"]],
    ["*.api.test", ["https://eu.api.test"], ["https://api.test"]],
    ["api.test:8443", ["https://api.test:8443"], ["https://api.test", "https://api.test:443"]],
    ["api.test:443", ["https://api.test"], ["http://api.test"]],
    ["*:80", ["http://api.test"], ["https://api.test"]],
    ["10.1.2.3", ["http://10.1.2.3"], ["http://10.1.2.30"]],
    ["10.0.0.0/8 192.168.0.0/16", ["http://10.9.9.9", "http://192.168.1.1:99"], [
      "http://11.0.0.1",
      "http://192.169.0.1"
    ]],
    ["[fd00::1]:8080,fd00::2", ["http://[fd00::1]:8080", "http://[fd00::2]"], ["http://[fd00::1]"]],
    [" , ,", [], ["https://api.test"]],
    ["10.0.0.0/99,nonsense/8,[", [], ["http://10.0.0.1"]]
  ]
  for (const [list, direct, proxied] of cases) {
    it(`is none for hosts that NO_PROXY lists: ${list}`, () => {
      for (const name of ["NO_PROXY", "no_proxy"]) {
        for (const url of direct) assert.isUndefined(proxyFor(url, { ...both, [name]: list }), url)
        for (const url of proxied) assert.isDefined(proxyFor(url, { ...both, [name]: list }), url)
      }
    })
  }

  it("is a URL, or a problem that names the variable and hides the value", () => {
    assert.deepStrictEqual(problemsOf({ ...both, NO_PROXY: "((" }), [])
    for (const value of ["ftp://hidden:21", "http://", "hidden host", "http://hidden:99999"]) {
      const problems = problemsOf({ https_proxy: value })
      assert.deepStrictEqual(problems.map(({ path }) => path), ["https_proxy"], value)
      assert.notInclude(JSON.stringify(problems), "hidden")
    }
  })
})
