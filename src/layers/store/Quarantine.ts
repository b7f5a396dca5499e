/** Tests once that a model loads, and quarantines a model that does not. */
import { Effect } from "effect"
import { rename, stat } from "node:fs/promises"
import { join } from "node:path"
import * as Defaults from "../../domain/Defaults.ts"
import * as EngineKinds from "../../services/engines/EngineKinds.ts"
import type { Manifest, StoredModel } from "../../services/store/ModelStore.ts"
import { fail, Quarantined, StoreUnusable } from "../../services/store/ModelStore.ts"
import { onDisk } from "./Download.ts"
import type { Outcome } from "./Inspection.ts"
import { inspect } from "./Inspection.ts"
import * as Manifests from "./Manifests.ts"
import type { Report, StoreContext } from "./StoreContext.ts"
import { now } from "./StoreContext.ts"

const quarantine = Effect.fnUntraced(function*(
  { options: { folder } }: StoreContext,
  { manifest, path }: StoredModel,
  detail: string
) {
  const kept = onDisk(path, async () => {
    for (const file of manifest.files) {
      const place = join(folder, manifest.name, file.path)
      await rename(place, `${place}.quarantined`)
    }
  })
  // A read-only store cannot record this: the file is then inspected again before its next load.
  yield* Effect.ignore(
    Effect.andThen(kept, Manifests.write(folder, { ...manifest, quarantined: { at: yield* now, detail } }))
  )
  return yield* fail(new Quarantined({ path, detail }))
})

/** Loads the model in a process of its own and computes one token. */
const inspectModel = ({ files }: StoreContext, { bytes, manifest, path }: StoredModel): Effect.Effect<Outcome> =>
  EngineKinds.ofFormat(manifest.kind).inspection!(path, files).pipe(
    Effect.flatMap((spec) => inspect(spec, Defaults.inspectLimit(bytes))),
    Effect.catch(({ reason }) => Effect.succeed<Outcome>({ type: "bad", detail: `${reason.detail}.` }))
  )

/** The file whose size, time and checksum identify an inspected version. */
const markedFile = ({ files, kind }: Manifest): Manifest["files"][number] =>
  (kind === "onnx" ? files.find(({ path }) => path.endsWith(".onnx")) : undefined) ?? files[0]

type Inspected = NonNullable<Manifest["inspected"]>

const isMarked = (mark: Inspected | undefined, { bytes, changedAt, sha256 }: Omit<Inspected, "at">): boolean =>
  mark?.bytes === bytes && mark.changedAt === changedAt && mark.sha256 === sha256

/** Records the inspection in the manifest; in a read-only store, for this process. */
const mark = Effect.fnUntraced(function*(
  { inspected: kept, options: { folder } }: StoreContext,
  model: StoredModel,
  inspected: Inspected
) {
  kept.set(model.path, inspected)
  return yield* Manifests.write(folder, { ...model.manifest, inspected }).pipe(
    Effect.catch((error) =>
      Effect.as(
        Effect.logDebug(`${model.path} passed its load test, but the store cannot record that: ${error.message}`),
        {
          ...model,
          manifest: { ...model.manifest, inspected }
        }
      )
    )
  )
})

/** Inspects a model unless this version has been inspected; returns it with its mark. */
export const ensureInspected = Effect.fnUntraced(function*(context: StoreContext, model: StoredModel, report: Report) {
  const { manifest, path } = model
  if (manifest.quarantined !== undefined) {
    return yield* fail(new Quarantined({ path, detail: manifest.quarantined.detail }))
  }
  const { folder } = context.options
  const { path: file, sha256 } = markedFile(manifest)
  const { mtimeMs, size } = yield* onDisk(path, () => stat(join(folder, manifest.name, file)))
  const version = { bytes: size, changedAt: mtimeMs, sha256 }
  if (isMarked(manifest.inspected, version) || isMarked(context.inspected.get(path), version)) return model
  yield* report({ type: "inspecting", name: manifest.name })
  const outcome = yield* inspectModel(context, model)
  switch (outcome.type) {
    case "bad":
      return yield* quarantine(context, model, outcome.detail)
    case "unknown":
      return yield* fail(new StoreUnusable({ path, detail: outcome.detail }))
    case "no-engine":
      return model
    case "passed":
      return yield* mark(context, model, { ...version, at: yield* now })
  }
})
