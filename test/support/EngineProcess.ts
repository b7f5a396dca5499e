/**
 * Loads the library of the llama engine without `getLlama`, as engine processes do: the test process of `getLlama` takes longer
 * than most tests. `test/conformance/llamaThread.test.ts` is run without this file.
 */
import { setEnvironmentData } from "node:worker_threads"
import { engineProcess } from "../../src/domain/EngineProtocol.ts"

setEnvironmentData(engineProcess, true)
