// What the page does besides showing: copying, filters that write into the search, finding in a session. Nothing is needed.
// Text of clients only ever goes through textContent.
"use strict";

// Copy buttons.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = button.parentElement.querySelector("[data-copy-source]");
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// Forms that ask first.
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.confirm)) event.preventDefault();
  });
}

// Forms that go by themselves.
for (const form of document.querySelectorAll("form[data-submit-on-change]")) {
  form.addEventListener("change", () => form.requestSubmit());
}

// Selects that stand for a term of the search.
for (const form of document.querySelectorAll("form[data-search]")) {
  const input = form.querySelector("input[name=q]");
  for (const select of form.querySelectorAll("select[data-term]")) {
    select.addEventListener("change", () => {
      const key = select.dataset.term;
      const others = (input.value.match(/(?:[^\s"]|"[^"]*"?)+/g) || []).filter((term) => !term.toLowerCase().startsWith(key + ":"));
      const value = select.value.replaceAll('"', "");
      if (value) others.push(key + ":" + (/\s/.test(value) ? '"' + value + '"' : value));
      input.value = others.join(" ");
      form.requestSubmit();
    });
  }
}

// Find in a session: steps without the words disappear, details with them open.
for (const form of document.querySelectorAll("form[data-find]")) {
  const input = form.querySelector("input");
  const count = form.querySelector("[data-find-count]");
  const steps = [...document.querySelectorAll("li[data-part]")];
  const threads = [...document.querySelectorAll("section[data-part]")];
  const has = (element, words) => element !== null && element.textContent.toLowerCase().includes(words);
  const find = () => {
    const words = input.value.trim().toLowerCase();
    let found = 0;
    for (const thread of threads) {
      const inHeader = has(thread.querySelector("header"), words);
      let any = inHeader;
      for (const step of thread.querySelectorAll("li[data-part]")) {
        const here = has(step, words);
        step.hidden = Boolean(words) && !here && !inHeader;
        any = any || here;
        if (here) found += 1;
        for (const details of step.querySelectorAll("details")) details.open = Boolean(words) && has(details, words);
      }
      if (inHeader) found += 1;
      thread.hidden = Boolean(words) && !any;
    }
    count.textContent = words ? found + (found === 1 ? " place" : " places") + " of " + (steps.length + threads.length) : "";
    mark(words);
  };
  // Highlights are ranges, not elements: what a client sent is never made into markup.
  const mark = (words) => {
    if (!("highlights" in CSS)) return;
    const ranges = [];
    if (words) {
      for (const element of document.querySelectorAll("[data-text]")) {
        const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
        while (walker.nextNode() && ranges.length < 2000) {
          const text = walker.currentNode.textContent.toLowerCase();
          for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + words.length)) {
            const range = new Range();
            range.setStart(walker.currentNode, at);
            range.setEnd(walker.currentNode, at + words.length);
            ranges.push(range);
          }
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };
  input.addEventListener("input", find);
  form.addEventListener("submit", (event) => event.preventDefault());
  if (input.value) find();
}
