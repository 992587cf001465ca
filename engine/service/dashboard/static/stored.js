// sessionStorage, or memory where a browser forbids it: the page works, a reload forgets.

const memory = new Map();

export const stored = {
  get(name) {
    try {
      return sessionStorage.getItem(name) ?? memory.get(name) ?? null;
    } catch {
      return memory.get(name) ?? null;
    }
  },

  set(name, text) {
    memory.set(name, text);
    try {
      sessionStorage.setItem(name, text);
    } catch {
      // Full or forbidden; the memory has it.
    }
  },

  remove(name) {
    memory.delete(name);
    try {
      sessionStorage.removeItem(name);
    } catch {
      // As above.
    }
  },
};
