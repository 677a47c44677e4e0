{{- /* Services may have no dot in their name, releases may. */ -}}
{{- define "tidegate.name" -}}
{{- .Release.Name | replace "." "-" | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 52 characters: of a longer name a StatefulSet can make no pod, for its label has 11 more. */ -}}
{{- define "tidegate.store" -}}
{{ include "tidegate.name" . | trunc 46 | trimSuffix "-" }}-store
{{- end -}}

{{- define "tidegate.selector" -}}
app.kubernetes.io/name: tidegate-data-plane
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "tidegate.labels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "tidegate.storeSelector" -}}
app.kubernetes.io/name: tidegate-store
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "tidegate.storeLabels" -}}
{{ include "tidegate.storeSelector" . }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
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

{{- define "tidegate.storeSecret" -}}
{{ .Values.store.bundled.existingSecret | default (include "tidegate.store" .) }}
{{- end -}}

{{- /* The port of a URL, or of host:port; else the scheme's. */ -}}
{{- define "tidegate.port" -}}
{{- $port := regexFind ":[0-9]+$" (regexReplaceAll "^[a-z+]+://([^/?#]*@)?([^/?#]*).*$" . "${2}") -}}
{{- if $port -}}{{ trimPrefix ":" $port }}
{{- else if regexMatch "^rediss?://" . -}}6379
{{- else if hasPrefix "https://" . -}}443
{{- else -}}80
{{- end -}}
{{- end -}}

{{- /* Ports of an external store, as a JSON list. */ -}}
{{- define "tidegate.storePorts" -}}
{{- $external := .Values.store.external -}}
{{- $ports := list (int .Values.networkPolicy.externalStorePort) -}}
{{- if $external.url -}}{{- $ports = list (int (include "tidegate.port" $external.url)) -}}{{- end -}}
{{- range concat $external.sentinels $external.clusterNodes -}}
{{- $ports = append $ports (int (include "tidegate.port" .)) -}}
{{- end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{- /* Ports of what else nodes reach, as a JSON list. */ -}}
{{- define "tidegate.egressPorts" -}}
{{- $ports := list (int (include "tidegate.port" .Values.controlPlane.url)) -}}
{{- with .Values.settings.TRACES_URL -}}{{- $ports = append $ports (int (include "tidegate.port" .)) -}}{{- end -}}
{{- with .Values.settings.LOAD_SERVERS -}}
{{- range splitList "," . -}}
{{- $ports = append $ports (int (include "tidegate.port" (regexReplaceAll "^[^=]*=" (trim .) ""))) -}}
{{- end -}}
{{- end -}}
{{- range .Values.networkPolicy.egressPorts -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{ $ports | uniq | toJson }}
{{- end -}}

{{- /* A setting's value: whole numbers as they are, not as 1e+06. */ -}}
{{- define "tidegate.word" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ printf "%.0f" . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- /* What the schema cannot say: settings that need each other. */ -}}
{{- define "tidegate.require" -}}
{{- if not (or .Values.credential.existingSecret .Values.credential.value) -}}
{{- fail "credential: name an existingSecret, or give the value" -}}
{{- end -}}
{{- $external := .Values.store.external -}}
{{- if .Values.store.bundled.enabled -}}
{{- if or $external.existingSecret $external.url -}}
{{- fail "store: either bundled.enabled or an external store, not both" -}}
{{- end -}}
{{- else if not (or $external.existingSecret $external.url) -}}
{{- fail "store.external: name an existingSecret, or give the url (or set store.bundled.enabled)" -}}
{{- end -}}
{{- if and (eq $external.shape "sentinel") (not (and $external.sentinels $external.masterName)) -}}
{{- fail "store.external: shape sentinel needs sentinels and masterName" -}}
{{- end -}}
{{- if and .Values.rls.enabled (eq (int .Values.rls.port) (int .Values.node.healthPort)) -}}
{{- fail "rls.port: is node.healthPort" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: name the host" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling: minReplicas is above maxReplicas" -}}
{{- end -}}
{{- end -}}
