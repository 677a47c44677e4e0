{{- define "tidegate.databaseSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" (include "tidegate.fullname" .)) }}
{{- end -}}

{{- /* How the database is reached, of (root, secret). */ -}}
{{- define "tidegate.databaseEnv" -}}
{{- $database := .root.Values.database -}}
- name: TIDEGATE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ ternary $database.key "url" (ne $database.existingSecret "") | quote }}
{{- if $database.tlsSecret }}
- { name: PGSSLROOTCERT, value: /etc/tidegate/database/ca.crt }
{{- if $database.clientCertificate }}
- { name: PGSSLCERT, value: /etc/tidegate/database/tls.crt }
- { name: PGSSLKEY, value: /etc/tidegate/database/tls.key }
{{- end }}
{{- end }}
{{- end -}}

{{- define "tidegate.databaseMount" -}}
{{- if .Values.database.tlsSecret }}
- { name: database-tls, mountPath: /etc/tidegate/database, readOnly: true }
{{- end }}
{{- end -}}

{{- define "tidegate.databaseVolume" -}}
{{- with .Values.database.tlsSecret }}
- { name: database-tls, secret: { secretName: {{ . | quote }}, defaultMode: 0440 } }
{{- end }}
{{- end -}}

{{- define "tidegate.databasePort" -}}
{{- if and .Values.database.url (not .Values.database.existingSecret) -}}
{{- $at := regexReplaceAll "^[a-z+]+://([^/?#]*@)?([^/?#]*).*$" .Values.database.url "${2}" -}}
{{ regexFind ":[0-9]+$" $at | trimPrefix ":" | default "5432" }}
{{- else -}}
{{ .Values.networkPolicy.databasePort }}
{{- end -}}
{{- end -}}

{{- define "tidegate.migrationSelector" -}}
{{ include "tidegate.selectorOf" (dict "root" . "name" "tidegate-migrate") }}
{{- end -}}

{{- /* The container that migrates, of (root, secret). */ -}}
{{- define "tidegate.migration" -}}
name: migrate
image: {{ include "tidegate.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [tidegate, migrate, --wait-s, {{ .root.Values.migration.waitSeconds | quote }}]
env: {{- include "tidegate.databaseEnv" . | nindent 2 }}
resources: {{- toYaml .root.Values.migration.resources | nindent 2 }}
securityContext: {{- toYaml .root.Values.securityContext | nindent 2 }}
{{- with include "tidegate.databaseMount" .root }}
volumeMounts: {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* The identity provider, of .Values.oidc. */ -}}
{{- define "tidegate.oidcEnv" -}}
{{- if .issuer }}
- { name: TIDEGATE_OIDC_ISSUER, value: {{ .issuer | quote }} }
- { name: TIDEGATE_OIDC_NAME, value: {{ .name | quote }} }
- { name: TIDEGATE_OIDC_SCOPES, value: {{ .scopes | quote }} }
- { name: TIDEGATE_OIDC_GROUPS_CLAIM, value: {{ .groupsClaim | quote }} }
{{- $grants := list }}
{{- range .grants }}
{{- $grant := dict "group" .group "role" .role "plans" (.plans | default list) "client_prefixes" (.clientPrefixes | default list) }}
{{- $grants = append $grants $grant }}
{{- end }}
- { name: TIDEGATE_OIDC_GRANTS, value: {{ $grants | toJson | quote }} }
{{- with .clientId }}
- { name: TIDEGATE_OIDC_CLIENT_ID, value: {{ . | quote }} }
{{- end }}
{{- with .publicUrl }}
- { name: TIDEGATE_PUBLIC_URL, value: {{ . | quote }} }
{{- end }}
{{- with .audience }}
- { name: TIDEGATE_OIDC_AUDIENCE, value: {{ . | quote }} }
{{- end }}
{{- if .existingSecret }}
- { name: TIDEGATE_OIDC_CLIENT_SECRET_FILE, value: /etc/tidegate/oidc/client-secret }
{{- end }}
{{- if .caSecret }}
- { name: TIDEGATE_OIDC_CA_FILE, value: /etc/tidegate/oidc-ca/ca.crt }
{{- end }}
{{- end }}
{{- end -}}

{{- /* What the schema cannot say: what must be given, and settings that need each other. All of it is said at once. */ -}}
{{- define "tidegate.requireControlPlane" -}}
{{- $wrong := list -}}
{{- if not (or .Values.database.existingSecret .Values.database.url) -}}
{{- $wrong = append $wrong "database.existingSecret: name a secret with the URL of Postgres (or give database.url)" -}}
{{- end -}}
{{- if regexMatch "[?&](port=|host=[^/%])" .Values.database.url -}}
{{- $wrong = append $wrong "database.url: name host and port before the database, not behind the ?: the network policy allows that port" -}}
{{- end -}}
{{- if and .Values.database.clientCertificate (not .Values.database.tlsSecret) -}}
{{- $wrong = append $wrong "database: clientCertificate is in tlsSecret: name that" -}}
{{- end -}}
{{- if not .Values.signingKey.existingSecret -}}
{{- $wrong = append $wrong "signingKey.existingSecret: name a secret with the key that `tidegate signing-key` makes" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- $wrong = append $wrong "autoscaling: minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- $wrong = append $wrong "ingress.host: name the host" -}}
{{- end -}}
{{- range $name, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range pick ($labels | default dict) "app.kubernetes.io/name" "app.kubernetes.io/instance" | keys | sortAlpha -}}
{{- $wrong = append $wrong (printf "%s: %s is set by the chart, for Services and policies find pods by it" $name .) -}}
{{- end -}}
{{- end -}}
{{- range .Values.ingress.paths -}}
{{- if regexMatch "^/+(metrics(/.*)?)?$" . -}}
{{- $wrong = append $wrong (printf "ingress.paths: %s exposes /metrics; name what is asked from outside, as /v1/" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.oidc }}
{{- if and .issuer (not (or .clientId .audience)) -}}
{{- $wrong = append $wrong "oidc: name clientId (for people), audience (for CI), or both" -}}
{{- end -}}
{{- if and .issuer (not .grants) -}}
{{- $wrong = append $wrong "oidc.grants: say which group has which role" -}}
{{- end -}}
{{- if and .issuer .clientId (not .publicUrl) -}}
{{- $wrong = append $wrong "oidc.publicUrl: say where browsers reach the control plane" -}}
{{- end -}}
{{- end }}
{{- if $wrong -}}
{{- fail (printf "\n\n  %s\n\nSee values.yaml and docs/install-kubernetes.md; to try Tidegate with nothing set: helm/evaluation." (join "\n  " $wrong)) -}}
{{- end -}}
{{- end -}}
