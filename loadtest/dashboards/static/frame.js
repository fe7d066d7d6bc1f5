// Shows the page /service below Locust's tab bar while the tab "Service" is chosen.
(() => {
  "use strict";

  // Locust has no event for a change of tab, and it rebuilds its page between runs.
  const CHECK_EVERY_MS = 150;
  let frame = null;

  function made() {
    const element = document.createElement("iframe");
    element.id = "transferd-service";
    element.title = "Service: figures of replicas and workers";
    element.src = "./service";
    // The page inside sets the height to the height of its content.
    element.style.cssText =
      "display:block;border:0;width:100%;max-width:1536px;height:70vh;margin:0 auto;" +
      "box-sizing:border-box;padding:0 24px";
    return element;
  }

  function check() {
    const main = document.querySelector("main");
    const tabs = document.querySelector('[role="tablist"]');
    const isChosen = new URLSearchParams(location.search).get("tab") === "service";
    if (!main || !tabs || !isChosen) {
      if (frame) frame.style.display = "none";
      return;
    }
    frame ??= made();
    // Move it only if necessary: a frame that is moved reloads.
    if (main.lastElementChild !== frame) main.append(frame);
    frame.style.display = "block";
  }

  addEventListener("popstate", check);
  document.addEventListener("click", () => setTimeout(check));
  setInterval(check, CHECK_EVERY_MS);
  check();
})();
