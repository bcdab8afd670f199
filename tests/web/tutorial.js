/** Reads a tutorial of docs/tutorials/, and runs its shell blocks as a reader does: in one shell, in their order. */

import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ROOT } from "./server.js";

/** One block on a slow machine: the start of the stack. */
const BLOCK_MS = 300_000;

/** Names in the repository that a tutorial gets empty: what commands write there belongs to the reader. */
const OWN = new Set(["drop", "results", "reports", "site", "cdk.out", ".git", ".local"]);

/**
 * @typedef {object} Step A shell block with the comment before it (`<!-- tutorial: KIND -->`), or the name of an image.
 * @property {string} [code]
 * @property {string} [kind] "": run. `exit N`: exits with this status. `server "TEXT"`: runs in the background, ready when it
 *   prints the text. `install`, `aws`: not run.
 * @property {string} [image]
 */

/** @param {string} name Stem of the page. @returns {Promise<Step[]>} Blocks and images in their order. */
export async function steps(name) {
  const text = await readFile(join(ROOT, "docs", "tutorials", `${name}.md`), "utf8");
  const pattern = /(?:^<!-- tutorial: (?<kind>[^\n]*) -->\n)?^```sh\n(?<code>.*?)^```$|^!\[[^\]]*\]\([^)]*\/(?<image>[^)/]+)\.png\)/gms;
  return [...text.matchAll(pattern)].map(({ groups = {} }) => (groups.image ? { image: groups.image } : { code: groups.code, kind: groups.kind ?? "" }));
}

/** A shell in a temporary folder that has the files of the repository. */
export class Shell {
  /**
   * @param {object} options
   * @param {string} options.python Python with the packages of the commands.
   * @param {Record<string, string>} [options.env]
   * @param {Record<string, string>} [options.ports] Ports in the text, and those of the test in their place.
   */
  static async start({ python, env = {}, ports = {} }) {
    const shell = new Shell();
    shell.folder = await mkdtemp(join(tmpdir(), "maskdrop-tutorial-"));
    shell.ports = ports;
    for (const name of await readdir(ROOT)) if (!OWN.has(name)) await symlink(join(ROOT, name), join(shell.folder, name));
    await cp(join(ROOT, ".local", "weights"), join(shell.folder, ".local", "weights"), { recursive: true });
    const bin = join(shell.folder, ".bin");
    await mkdir(bin);
    for (const [name, call] of [["maskdrop", `${python} -m cli`], ["python", python]]) {
      await writeFile(join(bin, name), `#!/bin/sh\nexec ${call} "$@"\n`, { mode: 0o755 });
    }
    shell.env = {
      ...process.env,
      PATH: `${bin}:${process.env.PATH}`,
      PYTHONPATH: ROOT,
      PYTHONUNBUFFERED: "1",
      XDG_DATA_HOME: join(shell.folder, "data"),
      MODEL_WEIGHTS_DIR: join(shell.folder, ".local", "weights"),
      MASKDROP_LOCAL_DIR: shell.folder,
      MAKEFLAGS: " -- RUN=", // the environment is there: no installation
      ...env,
    };
    shell.log = "";
    shell.processes = [];
    shell.main = shell.spawn([]);
    shell.count = 0;
    return shell;
  }

  /** Starts bash in a process group of its own. @param {string[]} call */
  spawn(call) {
    const child = spawn("bash", call, { cwd: this.folder, env: this.env, detached: true });
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (this.log += data));
    const closed = new Promise((end) => child.once("close", end)); // all processes of the group have ended
    this.processes.push({ child, closed });
    return child;
  }

  /** Runs a block. Throws an error with the output if its exit status is another. @param {Step} step */
  async run({ code = "", kind = "" }) {
    if (kind === "install" || kind === "aws") return;
    const file = join(this.folder, `.block-${(this.count += 1)}`);
    const text = Object.entries(this.ports).reduce((now, [from, to]) => now.replaceAll(`127.0.0.1:${from}`, `127.0.0.1:${to}`), code);
    await writeFile(file, text);
    const ready = /^server "(.*)"$/.exec(kind)?.[1];
    if (ready) {
      this.spawn([file]); // the first of the two shells of a reader
      return this.printed(ready, code);
    }
    const status = /^exit (\d+)$/.exec(kind)?.[1];
    // Variables of a block stay for the next one, as in the reader's shell; `set -e` ends the shell at the first failure.
    const call = status ? `( . ${file} ) < /dev/null; [ $? = ${status} ] || exit 1` : `set -e; . ${file} < /dev/null; set +e`;
    this.main.stdin.write(`${call}\necho "block ${this.count} ended"\n`);
    await this.printed(`block ${this.count} ended`, code);
  }

  /** @param {string} text @param {string} code */
  async printed(text, code) {
    const end = Date.now() + BLOCK_MS;
    while (!this.log.includes(text)) {
      if (this.main.exitCode !== null || Date.now() > end) throw new Error(`failed:\n${code}\n${this.log}`);
      await new Promise((wait) => setTimeout(wait, 100));
    }
  }

  /** Stops the servers, and deletes the folder. */
  async close() {
    for (const { child, closed } of this.processes) {
      try {
        process.kill(-Number(child.pid), "SIGTERM");
      } catch {
        // it has ended
      }
      await closed;
    }
    await rm(this.folder, { recursive: true, force: true });
  }
}
