// Reads {"call", …options}, calls that function of the client remove.bg and prints what it gives, or {"errors"}.
const fs = require("fs");
const client = require("remove.bg");

const { call, ...options } = JSON.parse(fs.readFileSync(0));
client[call](options).then(
  (answer) => console.log(JSON.stringify(answer)),
  (errors) => console.log(JSON.stringify({ errors })),
);
