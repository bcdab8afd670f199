// node -r hook.js: redirects the requests of the remove.bg client from its fixed URL to API.
const http = require("http");
const https = require("https");

const api = new URL(process.env.API);

https.request = (options, callback) => {
  const headers = Object.entries(options.headers || {}).filter(([name]) => name.toLowerCase() !== "host");
  return http.request(
    {
      ...options,
      protocol: "http:",
      host: api.hostname,
      hostname: api.hostname,
      port: api.port,
      path: api.pathname.replace(/\/$/, "") + options.path,
      headers: Object.fromEntries(headers),
      agent: undefined, // the default agent is for https
    },
    callback,
  );
};
