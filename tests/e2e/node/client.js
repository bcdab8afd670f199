// Reads {"call", …options}, calls that function of the remove.bg client and prints its result, or {"errors"}.
const fs = require("fs");
const client = require("remove.bg");

const { call, ...options } = JSON.parse(fs.readFileSync(0));
client[call](options).then(
  (result) => console.log(JSON.stringify(result)),
  (errors) => console.log(JSON.stringify({ errors })),
);
