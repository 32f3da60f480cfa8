/** Cards above the pictures: one per subject, each with a title, words, and what can be done. */
export class Notices {
  #cards = new Map();
  /** The words of cards that the user has put away. */
  #dismissed = new Map();

  constructor(place) {
    this.place = place;
  }

  /**
   * Show {title, text, urgent, action: {label, run}} under `subject`, in place of what was there.
   * Urgent ones are read out at once. Without `stays`, the user can put the card away.
   */
  show(subject, { title, text, urgent = false, stays = false, action = null }) {
    const words = `${title}\n${text}`;
    if (this.#cards.get(subject)?.dataset.words === words) return;
    if (this.#dismissed.get(subject) === words) return;
    this.hide(subject);
    const card = document.createElement("div");
    card.className = urgent ? "notice urgent" : "notice";
    card.setAttribute("role", urgent ? "alert" : "status");
    Object.assign(card.dataset, { subject, words });
    card.append(paragraph(title, text));
    if (action) card.append(button(action.label, action.run));
    if (!stays) card.append(button("Dismiss", () => this.#dismiss(subject, words)));
    this.place.append(card);
    this.#cards.set(subject, card);
  }

  /** Show it even if the user has put the same words away before: it has happened again. */
  announce(subject, notice) {
    this.hide(subject);
    this.show(subject, notice);
  }

  hide(subject) {
    this.#cards.get(subject)?.remove();
    this.#cards.delete(subject);
    this.#dismissed.delete(subject);
  }

  #dismiss(subject, words) {
    this.hide(subject);
    this.#dismissed.set(subject, words);
  }
}

function paragraph(title, text) {
  const words = document.createElement("p");
  const strong = document.createElement("strong");
  strong.textContent = title;
  const rest = document.createElement("span");
  rest.textContent = text;
  words.append(strong, " ", rest);
  return words;
}

function button(label, run) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", run);
  return made;
}
