"""The protocols of `maskdrop.services`, kept with botocore, whose errors stop here."""
