# The part of a Coder template that sends everything in a workspace through aiproxyd. Paste it into the template; the agent is yours.
# Each person has a token of their own (`aiproxyd user add NAME`), which Coder keeps as a user secret or asks for as a parameter.

variable "aiproxyd_proxy" {
  description = "URL of the proxy."
  default     = "proxy.internal:8888"
}

variable "aiproxyd_admin" {
  description = "URL of the admin server, for the CA's certificate."
  default     = "http://proxy.internal:8889"
}

variable "aiproxyd_folder" {
  description = "Where certificates are kept; the workspace's user may write there."
  default     = "/var/tmp/aiproxyd"
}

data "coder_parameter" "aiproxyd_token" {
  name         = "aiproxyd_token"
  display_name = "aiproxyd token"
  description  = "What `aiproxyd user add` printed for you."
  mutable      = true
}

data "coder_workspace_owner" "me" {}

locals {
  aiproxyd_url    = "http://${data.coder_workspace_owner.me.name}:${data.coder_parameter.aiproxyd_token.value}@${var.aiproxyd_proxy}"
  aiproxyd_ca     = "${var.aiproxyd_folder}/ca-cert.pem"
  aiproxyd_bundle = "${var.aiproxyd_folder}/ca-bundle.pem"
  # Coder's own server is reached straight.
  aiproxyd_no_proxy = "localhost,127.0.0.1,::1,coder.internal"
}

resource "coder_agent" "main" {
  os   = "linux"
  arch = "amd64"

  env = {
    HTTPS_PROXY = local.aiproxyd_url
    HTTP_PROXY  = local.aiproxyd_url
    https_proxy = local.aiproxyd_url
    http_proxy  = local.aiproxyd_url
    NO_PROXY    = local.aiproxyd_no_proxy
    no_proxy    = local.aiproxyd_no_proxy

    # Added to what a tool trusts.
    NODE_EXTRA_CA_CERTS  = local.aiproxyd_ca
    CODEX_CA_CERTIFICATE = local.aiproxyd_ca

    # In the place of what a tool trusts.
    SSL_CERT_FILE      = local.aiproxyd_bundle
    REQUESTS_CA_BUNDLE = local.aiproxyd_bundle
    CURL_CA_BUNDLE     = local.aiproxyd_bundle
    AWS_CA_BUNDLE      = local.aiproxyd_bundle
    GIT_SSL_CAINFO     = local.aiproxyd_bundle

    NODE_USE_ENV_PROXY = "1"
  }
}

# Fetches the CA before anybody logs in.
resource "coder_script" "aiproxyd_ca" {
  agent_id           = coder_agent.main.id
  display_name       = "Trust of aiproxyd"
  run_on_start       = true
  start_blocks_login = true
  script             = <<-EOT
    #!/bin/sh
    set -eu
    folder=${var.aiproxyd_folder}
    mkdir -p "$folder"
    env -u CURL_CA_BUNDLE -u SSL_CERT_FILE curl -fsS --noproxy '*' -o "$folder/ca-cert.pem" "${var.aiproxyd_admin}/ca-cert.pem"
    cat /etc/ssl/certs/ca-certificates.crt "$folder/ca-cert.pem" > "$folder/ca-bundle.pem"
  EOT
}
