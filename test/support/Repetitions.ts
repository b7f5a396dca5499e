/** How often a test repeats what it tries at random: `usual` times in `npm test`, `all` in the step of `.ci/run` for it. */
export const repetitions = (usual: number, all: number): number =>
  process.env["TROUPE_TEST_REPETITIONS"] === "all" ? all : usual
