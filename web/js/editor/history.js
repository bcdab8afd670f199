/** States that can be undone and redone. It uses no DOM. */

/** States of one session, oldest dropped first. */
const STATES_MAX = 500;

/** @template State A value that is never changed, only replaced. */
export class History {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    /** @type {State[]} */
    this.past = [];
    /** @type {State[]} */
    this.future = [];
  }

  get canUndo() {
    return this.past.length > 0;
  }

  get canRedo() {
    return this.future.length > 0;
  }

  /** @param {State} state */
  push(state) {
    if (state === this.state) return;
    this.past.push(this.state);
    if (this.past.length > STATES_MAX) this.past.shift();
    this.future = [];
    this.state = state;
  }

  /** @returns {boolean} Whether there was a state to return to. */
  undo() {
    return this.#move(this.past, this.future);
  }

  /** @returns {boolean} */
  redo() {
    return this.#move(this.future, this.past);
  }

  /** @param {State[]} from @param {State[]} to */
  #move(from, to) {
    const state = from.pop();
    if (state === undefined) return false;
    to.push(this.state);
    this.state = state;
    return true;
  }
}
