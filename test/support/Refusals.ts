/** A limit and a budget that reject a request. */

export const limitExceeded = {
  limit: "requestsPerHour",
  counter: "user ada, endpoint chat",
  most: 100,
  remaining: 0
} as const

export const budgetExceeded = {
  counter: "user ada",
  period: "month",
  measure: "usd",
  most: 10,
  spent: 9.5,
  reserved: 0.25,
  needed: 1
} as const
