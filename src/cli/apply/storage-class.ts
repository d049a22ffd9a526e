/** What a StorageClass' manifest says about volumes (mayastor.md 3.1). Pure. */
import {
  volumeClassOf as classOfParameters,
  type VolumeClass as ParameterClass,
} from "../../csi/class-parameters.ts";
import { DRIVER_NAME_DEFAULT } from "../../csi/names.ts";
import { TrilithError } from "../../errors.ts";
import { type Manifest, textAt, textsAt } from "../../kube/manifest-file.ts";

export interface VolumeClass
  extends Pick<
    ParameterClass,
    "replicas" | "thin" | "maxSnapshots" | "affinityGroup" | "topology"
  > {
  readonly name: string;
  readonly isDefault: boolean;
  /** What was found and has no effect here. */
  readonly notes: readonly string[];
}

/** Drivers whose classes are understood: ours (a setting of Mayastor's) and Diamanti's. */
const provisioners = [DRIVER_NAME_DEFAULT, "dcx.csi.diamanti.com", "csi.trilith.io"];
const DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class";

/** The class that a StorageClass describes. Throws `InvalidArgument`, `Unimplemented`. */
export function volumeClassOf(manifest: Manifest): VolumeClass {
  const provisioner = textAt(manifest.fields.provisioner, `${manifest.where}: provisioner`) ?? "";
  if (!provisioners.includes(provisioner)) {
    throw new TrilithError(
      "InvalidArgument",
      `${manifest.where}: the provisioner "${provisioner}" is another driver's`,
      `use ${provisioners[0]}`,
    );
  }
  const given = textsAt(manifest.fields.parameters, `${manifest.where}: parameters`);
  // What is not known is noted: nobody waits for a volume of the class yet.
  const parameters = { ...given, allowUnknownParameters: "true" };
  const { replicas, thin, maxSnapshots, affinityGroup, topology, ignored } = classOfParameters(
    parameters,
    manifest.where,
  );
  const annotations = textsAt(manifest.metadata.annotations, `${manifest.where}: annotations`);
  return {
    name: manifest.name,
    replicas,
    thin,
    maxSnapshots,
    affinityGroup,
    topology,
    isDefault: annotations[DEFAULT_CLASS] === "true",
    notes: ignored.map((name) => `parameter ${name} has no effect`),
  };
}
