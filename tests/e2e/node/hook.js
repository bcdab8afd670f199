// node -r hook.js: the client remove.bg, which knows one address, is sent to API instead; all else is as it is.
const http = require("http");
const https = require("https");

const api = new URL(process.env.API);

https.request = (options, answered) => {
  const headers = Object.entries(options.headers || {}).filter(([name]) => name.toLowerCase() !== "host");
  return http.request(
    {
      ...options,
      protocol: "http:",
      host: api.hostname,
      hostname: api.hostname,
      port: api.port,
      path: api.pathname + options.path,
      headers: Object.fromEntries(headers),
      agent: undefined, // the one for https
    },
    answered,
  );
};
