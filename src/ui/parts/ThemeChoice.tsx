/** The switch between dark, light and the system's choice. */
import type { Theme } from "../theme.ts"
import { choose, theme, themes } from "../theme.ts"

export const ThemeChoice = () => (
  <label class="theme">
    <span class="muted">Theme</span>
    <select value={theme.value} onChange={(event) => choose(event.currentTarget.value as Theme)}>
      {Object.entries(themes).map(([name, label]) => <option key={name} value={name}>{label}</option>)}
    </select>
  </label>
)
