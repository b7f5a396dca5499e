/**
 * The share of its model's requests that a deployment has where something sets it: a rollout, an A/B test, `rollout: candidate` or
 * `shadow`; and why it has none.
 *
 * **Gotchas**
 *
 * A deployment that is one of several equal ones of its model has no version.
 */
export const versionRoles = ["candidate", "shadow", "variant", "withheld"] as const

/** Why a rollout that is over withholds a deployment. */
export const withheldReasons = ["rolledBack", "replaced", "aborted"] as const
export type WithheldReason = typeof withheldReasons[number]

/** A deployment whose share of the requests is set: by a rollout, an A/B test, `rollout: candidate` or `shadow`. */
export interface Version {
  readonly deployment: string
  /**
   * `withheld`: a rollout has ended with another deployment, which has all of its requests. `shadow`: it gets copies of requests
   * only.
   */
  readonly role: typeof versionRoles[number]
  /** Its share of the requests, from 0 to 1; of a shadow, the share that is copied to it. */
  readonly weight: number
  /** Of a withheld deployment. */
  readonly reason?: WithheldReason
}

/** Of a deployment that takes no requests. */
export const withheldVersion = (deployment: string, reason: WithheldReason | undefined): Version => ({
  deployment,
  role: "withheld",
  weight: 0,
  ...(reason === undefined ? {} : { reason })
})

/** For people. */
export const reasonTexts = {
  rolledBack: "rolled back",
  replaced: "replaced",
  aborted: "aborted"
} as const satisfies Record<WithheldReason, string>
