/** The side without Troupe: node-llama-cpp in a process of its own (`direct.ts`). */
import { withChild } from "./Child.ts"
import type { Round } from "./ClosedLoop.ts"
import type { DirectAnswer, DirectQuestion, DirectRound, DirectSetup } from "./direct.ts"

/** A direct process that has loaded its model. */
export interface Direct {
  readonly pid: number
  readonly run: (round: DirectRound) => Promise<Round>
}

/**
 * The service's setting for its engine process. With several threads, llama.cpp reads the logits of a shared batch
 * concurrently, which is sometimes faster and mixes up the answers.
 */
const environment = { UV_THREADPOOL_SIZE: "1" }

/** Starts the process, loads the model, and runs during `use`. */
export const withDirect = <A>(setup: DirectSetup, use: (direct: Direct) => Promise<A>): Promise<A> =>
  withChild<DirectQuestion, DirectAnswer, A>("direct.ts", async ({ ask, pid }) => {
    await ask({ load: setup })
    return use({
      pid,
      async run(round) {
        const answer = await ask({ round })
        if (answer === null) throw new Error("direct.ts returned no round")
        return answer
      }
    })
  }, environment)
