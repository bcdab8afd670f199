/** Starts `maskdrop serve` for the tests, in a folder of its own. */

import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

export const ROOT = resolve(import.meta.dirname, "../..");

const PYTHON = process.env.MASKDROP_PYTHON ?? join(ROOT, ".venv/bin/python");
const START_MS = 90_000;

const run = promisify(execFile);

/** @returns {Promise<number>} A free port of this machine. */
export async function freePort() {
  const probe = createServer();
  await new Promise((ready) => probe.listen(0, "127.0.0.1", () => ready(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (probe.address());
  await new Promise((closed) => probe.close(closed));
  return port;
}

/** A running server. */
export class Server {
  /**
   * @param {{keys?: boolean, folder?: string, port?: number, env?: Record<string, string>, python?: string}} [options]
   *   keys: whether requests need an API key. env: settings of the server. python: interpreter that runs it.
   */
  static async start({ keys = false, folder, port, env = {}, python = PYTHON } = {}) {
    const server = new Server();
    server.folder = folder ?? (await mkdtemp(join(tmpdir(), "maskdrop-web-")));
    server.port = port ?? (await freePort());
    server.url = `http://127.0.0.1:${server.port}`;
    Object.assign(server, { keys, env, python });
    await server.run();
    return server;
  }

  async run() {
    const auth = this.keys ? [] : ["--no-auth"];
    const call = ["-m", "cli", "serve", "--port", String(this.port), "--data", this.folder, ...auth];
    this.log = "";
    this.process = spawn(this.python, call, { cwd: ROOT, env: { ...process.env, PYTHONPATH: ROOT, ...this.env } });
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (data) => (this.log += data));
    const end = Date.now() + START_MS;
    while (!(await fetch(`${this.url}/ping`).then((response) => response.ok, () => false))) {
      if (this.process.exitCode !== null || Date.now() > end) throw new Error(`maskdrop serve did not start:\n${this.log}`);
      await new Promise((wait) => setTimeout(wait, 200));
    }
  }

  /** Stops the process; its data stay. */
  async stop() {
    if (this.process.exitCode !== null) return;
    const ended = new Promise((end) => this.process.once("exit", end));
    this.process.kill("SIGTERM");
    await ended;
  }

  async close() {
    await this.stop();
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Runs `maskdrop keys … --serve` and returns its output. @param {string[]} call */
  async key(...call) {
    const { stdout } = await run(PYTHON, ["-m", "cli", "keys", ...call, "--serve", "--data", this.folder], {
      cwd: ROOT,
      env: { ...process.env, PYTHONPATH: ROOT, COLUMNS: "300" },
    });
    return stdout;
  }
}
