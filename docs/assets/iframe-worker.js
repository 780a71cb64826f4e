// Browsers start no worker from a file. Search runs in one: on file:// it gets a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      this.ready = new Promise((resolve) => {
        inside.document.open()
        // what the worker's script expects around it; what it posts reaches the listeners here
        inside.importScripts = (...urls) =>
          urls.reduce((before, one) => before.then(() => new Promise((done, failed) => {
            const script = inside.document.createElement("script")
            Object.assign(script, { src: one, onload: done, onerror: failed })
            inside.document.body.appendChild(script)
          })), Promise.resolve())
        inside.document.write("<!doctype html><body></body>")
        inside.document.close()
        const post = inside.postMessage.bind(inside)
        this.send = (data) => post(data, "*")
        inside.postMessage = (data) => {
          const event = new MessageEvent("message", { data })
          this.dispatchEvent(event)
          if (this.onmessage) this.onmessage(event)
        }
        const script = inside.document.createElement("script")
        Object.assign(script, { src: url, onload: resolve })
        inside.document.body.appendChild(script)
      })
    }
    postMessage(data) { this.ready.then(() => this.send(data)) }
    terminate() { this.frame.remove() }
  }
}
