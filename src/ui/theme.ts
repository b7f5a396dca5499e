/**
 * Dark and light: as the system says, unless the reader chose one. The choice is kept in the browser; it is the only thing that
 * is.
 */
import { signal } from "@preact/signals"

export const themes = { system: "System", light: "Light", dark: "Dark" } as const
export type Theme = keyof typeof themes

const storageName = "troupe-theme"

const isTheme = (name: string | null): name is Theme => name !== null && Object.hasOwn(themes, name)

/** Where storage is blocked, the choice ends with the page. */
const stored = (): Theme => {
  try {
    const name = localStorage.getItem(storageName)
    return isTheme(name) ? name : "system"
  } catch {
    return "system"
  }
}

export const theme = signal<Theme>("system")

/** Counts changes of the colors, which drawings on a canvas have to follow. */
export const themeChanges = signal(0)

const apply = (chosen: Theme): void => {
  document.documentElement.dataset["theme"] = chosen
  theme.value = chosen
  themeChanges.value++
}

export const choose = (chosen: Theme): void => {
  apply(chosen)
  try {
    localStorage.setItem(storageName, chosen)
  } catch {
    // The choice ends with the page.
  }
}

export const follow = (): void => {
  apply(stored())
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themeChanges.value++)
}

/** A color of the style sheet as a canvas needs it. */
export const colorOf = (name: string): string => {
  const probe = document.createElement("span")
  probe.style.color = `var(--${name})`
  document.body.append(probe)
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}
