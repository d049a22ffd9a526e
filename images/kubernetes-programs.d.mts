/** Folder of the programs; null when they have not been built. */
export function kubernetesPrograms(): string | null;
/** Builds them when they are not there. False: there is no Go, or it failed; `say` has told why. */
export function buildKubernetesPrograms(say: (text: string) => void): boolean;
