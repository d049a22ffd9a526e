/** Path of the program; null when it has not been installed. */
export function csiSanity(): string | null;
/** Installs it when it is not there. False: there is no Go, or it failed; `say` has told why. */
export function installCsiSanity(say: (text: string) => void): boolean;
