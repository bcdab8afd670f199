// Sends the requests to api.remove.bg to MASKDROP_URL instead, for clients whose URL is fixed:
//   MASKDROP_URL=https://… node --require ./removebg-url.cjs app.js
const http = require("http");
const https = require("https");

const HOST = "api.remove.bg";
if (!process.env.MASKDROP_URL) throw new Error("Set MASKDROP_URL to the URL of your API, such as http://127.0.0.1:8080.");
const base = new URL(process.env.MASKDROP_URL);
const path = base.pathname.replace(/\/$/, "");

const request = https.request;
https.request = (first, ...rest) => {
  const options =
    typeof first === "string" || first instanceof URL
      ? { ...urlOptions(new URL(first)), ...(typeof rest[0] === "object" ? rest.shift() : {}) }
      : { ...first };
  if ((options.hostname || options.host || "").replace(/:443$/, "") !== HOST) {
    return request(first, ...rest);
  }
  const headers = { ...options.headers };
  for (const name of Object.keys(headers)) {
    if (name.toLowerCase() === "host") delete headers[name];
  }
  const target = {
    ...options,
    headers,
    protocol: base.protocol,
    host: base.hostname,
    hostname: base.hostname,
    servername: base.hostname,
    port: base.port || (base.protocol === "http:" ? 80 : 443),
    path: path + options.path,
    agent: undefined, // the agent of the caller may be for the other protocol
  };
  return base.protocol === "http:" ? http.request(target, ...rest) : request(target, ...rest);
};
https.get = (...options) => {
  const call = https.request(...options);
  call.end();
  return call;
};

const fetchUrl = globalThis.fetch;
if (fetchUrl) {
  globalThis.fetch = (resource, options) => {
    const url = resource instanceof Request ? resource.url : String(resource);
    if (!url.startsWith(`https://${HOST}/`)) return fetchUrl(resource, options);
    const moved = base.origin + path + url.slice(`https://${HOST}`.length);
    return resource instanceof Request ? fetchUrl(new Request(moved, resource), options) : fetchUrl(moved, options);
  };
}

function urlOptions(url) {
  return { protocol: url.protocol, hostname: url.hostname, port: url.port, path: url.pathname + url.search };
}
