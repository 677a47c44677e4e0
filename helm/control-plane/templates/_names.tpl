{{- /* Services may have no dot in their name, releases may. */ -}}
{{- define "tidegate.name" -}}
{{- .Release.Name | replace "." "-" | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- define "tidegate.selector" -}}
app.kubernetes.io/name: tidegate-control-plane
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "tidegate.labels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "tidegate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "tidegate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "tidegate.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "tidegate.databaseSecret" -}}
{{ .Values.database.existingSecret | default (printf "%s-database" (include "tidegate.name" .)) }}
{{- end -}}

{{- define "tidegate.databaseEnv" -}}
- name: TIDEGATE_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "tidegate.databaseSecret" . }}
      key: {{ ternary .Values.database.key "url" (ne .Values.database.existingSecret "") }}
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
app.kubernetes.io/name: tidegate-migrate
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- /* A setting's value: whole numbers as they are, not as 1e+06. */ -}}
{{- define "tidegate.word" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ printf "%.0f" . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* What the schema cannot say: settings that need each other. */ -}}
{{- define "tidegate.require" -}}
{{- if not (or .Values.database.existingSecret .Values.database.url) -}}
{{- fail "database: name an existingSecret, or give the url" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling: minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: name the host" -}}
{{- end -}}
{{- end -}}
