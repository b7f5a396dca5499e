/** Whether tests repeat and measure less, as in `npm test`; a step of `.ci/run` runs those that do in full. */
export const isBrief = process.env["TROUPE_TEST_REPETITIONS"] !== "all"

/** How often a test repeats what it tries at random. */
export const repetitions = (brief: number, all: number): number => isBrief ? brief : all
